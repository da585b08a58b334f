"""Publish messages and know, for each, that the broker has it."""

import sys

import pika
from common import arguments, connect

parser = arguments("Publish messages and wait for the broker's confirms.")
parser.add_argument("count", nargs="?", type=int, default=100)
parser.add_argument("--queue", default="confirmed", help="its name (default: %(default)s)")
options = parser.parse_args()

with connect(options.url) as connection:
    channel = connection.channel()
    channel.queue_declare(queue="confirmed", durable=True)
    # From here on the broker answers every publish, and basic_publish waits for that answer.
    channel.confirm_delivery()
    for number in range(options.count):
        try:
            channel.basic_publish(
                exchange="",
                routing_key=options.queue,
                body=f"message {number}".encode(),
                properties=pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent),
                # Without this, a message that fits no queue would be dropped and confirmed.
                mandatory=True,
            )
        except pika.exceptions.UnroutableError:
            sys.exit(f"message {number} was returned: there is no queue {options.queue}")
        except pika.exceptions.NackError:
            sys.exit(f"message {number} was refused: publish it again later")
    print(f"confirmed {options.count}")
