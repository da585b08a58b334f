"""Print every message of the queue `hello`."""

import pika
from common import arguments, connect, consume_until_stopped
from pika.adapters.blocking_connection import BlockingChannel


def show(
    channel: BlockingChannel,
    delivery: pika.spec.Basic.Deliver,
    properties: pika.BasicProperties,
    body: bytes,
) -> None:
    print(f"received {body.decode()}", flush=True)


options = arguments("Print what is sent to the queue hello.").parse_args()
connection = connect(options.url)
channel = connection.channel()
channel.queue_declare(queue="hello")
# auto_ack: the broker forgets a message once it is sent. Fine for a greeting, not for work.
channel.basic_consume(queue="hello", on_message_callback=show, auto_ack=True)
consume_until_stopped(connection, channel)
