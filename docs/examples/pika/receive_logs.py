"""Print every log line that is sent while this program runs."""

import pika
from common import arguments, connect, consume_until_stopped
from pika.adapters.blocking_connection import BlockingChannel


def show(
    channel: BlockingChannel,
    delivery: pika.spec.Basic.Deliver,
    properties: pika.BasicProperties,
    body: bytes,
) -> None:
    print(f"log {body.decode()}", flush=True)


options = arguments("Print all log lines.").parse_args()
connection = connect(options.url)
channel = connection.channel()
channel.exchange_declare(exchange="logs", exchange_type="fanout")
# No name: the broker makes one up. Exclusive: the queue is ours and ends with our connection.
queue = channel.queue_declare(queue="", exclusive=True).method.queue
channel.queue_bind(queue=queue, exchange="logs")
channel.basic_consume(queue=queue, on_message_callback=show, auto_ack=True)
consume_until_stopped(connection, channel)
