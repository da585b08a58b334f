"""Print the log lines of the severities that the command line names."""

import pika
from common import arguments, connect, consume_until_stopped
from pika.adapters.blocking_connection import BlockingChannel


def show(
    channel: BlockingChannel,
    delivery: pika.spec.Basic.Deliver,
    properties: pika.BasicProperties,
    body: bytes,
) -> None:
    print(f"log {delivery.routing_key}: {body.decode()}", flush=True)


parser = arguments("Print the log lines of some severities.")
parser.add_argument("severities", nargs="+", metavar="SEVERITY")
options = parser.parse_args()
connection = connect(options.url)
channel = connection.channel()
channel.exchange_declare(exchange="logs.direct", exchange_type="direct")
queue = channel.queue_declare(queue="", exclusive=True).method.queue
# One binding for each severity; a queue may have as many as it likes.
for severity in options.severities:
    channel.queue_bind(queue=queue, exchange="logs.direct", routing_key=severity)
channel.basic_consume(queue=queue, on_message_callback=show, auto_ack=True)
consume_until_stopped(connection, channel)
