"""Answer requests for Fibonacci numbers."""

import pika
from common import arguments, connect, consume_until_stopped
from pika.adapters.blocking_connection import BlockingChannel


def fibonacci(n: int) -> int:
    low, high = 0, 1
    for _ in range(n):
        low, high = high, low + high
    return low


def answer(
    channel: BlockingChannel,
    delivery: pika.spec.Basic.Deliver,
    request: pika.BasicProperties,
    body: bytes,
) -> None:
    n = int(body)
    print(f"asked for {n}", flush=True)
    # The request says where its answer goes, and the mark by which the client will know it.
    channel.basic_publish(
        exchange="",
        routing_key=request.reply_to or "",
        body=str(fibonacci(n)).encode(),
        properties=pika.BasicProperties(correlation_id=request.correlation_id),
    )
    channel.basic_ack(delivery.delivery_tag)


options = arguments("Compute Fibonacci numbers for others.").parse_args()
connection = connect(options.url)
channel = connection.channel()
channel.queue_declare(queue="rpc")
# With several servers, each takes one request at a time.
channel.basic_qos(prefetch_count=1)
channel.basic_consume(queue="rpc", on_message_callback=answer)
consume_until_stopped(connection, channel)
