"""Print the log lines whose key fits one of the patterns that the command line names."""

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


parser = arguments("Print the log lines whose key fits a pattern.")
parser.add_argument(
    "patterns",
    nargs="+",
    metavar="PATTERN",
    help="words with dots between; * stands for one word, # for any number, none too",
)
options = parser.parse_args()
connection = connect(options.url)
channel = connection.channel()
channel.exchange_declare(exchange="logs.topic", exchange_type="topic")
queue = channel.queue_declare(queue="", exclusive=True).method.queue
for pattern in options.patterns:
    # A line that fits several of our patterns still comes once.
    channel.queue_bind(queue=queue, exchange="logs.topic", routing_key=pattern)
channel.basic_consume(queue=queue, on_message_callback=show, auto_ack=True)
consume_until_stopped(connection, channel)
