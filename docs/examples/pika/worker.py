"""Do tasks one at a time; start several workers to share the work among them."""

import time

import pika
from common import arguments, connect, consume_until_stopped
from pika.adapters.blocking_connection import BlockingChannel


def work(
    channel: BlockingChannel,
    delivery: pika.spec.Basic.Deliver,
    properties: pika.BasicProperties,
    body: bytes,
) -> None:
    print(f"started {body.decode()}", flush=True)
    time.sleep(body.count(b".") / 10)
    # Only now may the broker forget the task. If this worker dies before, another one gets it.
    channel.basic_ack(delivery.delivery_tag)
    print(f"finished {body.decode()}", flush=True)


options = arguments("Do the tasks that new_task.py sends.").parse_args()
connection = connect(options.url)
channel = connection.channel()
channel.queue_declare(queue="tasks", durable=True)
# No second task before the first is acknowledged: a slow task does not hold up those behind it.
channel.basic_qos(prefetch_count=1)
channel.basic_consume(queue="tasks", on_message_callback=work)
consume_until_stopped(connection, channel)
