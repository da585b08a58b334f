"""Give the workers a task; every dot in its text is a tenth of a second of work."""

import pika
from common import arguments, connect

parser = arguments("Give the workers a task.")
parser.add_argument("text", nargs="*", default=["dig", "a", "burrow..."])
options = parser.parse_args()
task = " ".join(options.text)

with connect(options.url) as connection:
    channel = connection.channel()
    # A durable queue is there again after the broker's restart ...
    channel.queue_declare(queue="tasks", durable=True)
    channel.basic_publish(
        exchange="",
        routing_key="tasks",
        body=task.encode(),
        # ... and so are the messages in it that ask for it.
        properties=pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent),
    )
    print(f"sent {task}")
