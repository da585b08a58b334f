"""Ask the server for a Fibonacci number and wait for its answer."""

import sys
import uuid

import pika
from common import arguments, connect

parser = arguments("Ask for a Fibonacci number.")
parser.add_argument("n", nargs="?", type=int, default=30)
parser.add_argument("--timeout", type=float, default=10, help="seconds (default: %(default)s)")
options = parser.parse_args()

with connect(options.url) as connection:
    channel = connection.channel()
    # A queue of our own for the answers.
    answers = channel.queue_declare(queue="", exclusive=True).method.queue
    mark = str(uuid.uuid4())
    channel.basic_publish(
        exchange="",
        routing_key="rpc",
        body=str(options.n).encode(),
        properties=pika.BasicProperties(reply_to=answers, correlation_id=mark),
    )
    print(f"asked for {options.n}", flush=True)
    for _, properties, body in channel.consume(
        answers, auto_ack=True, inactivity_timeout=options.timeout
    ):
        if properties is None:
            sys.exit("no answer in time: is rpc_server.py running?")
        # An answer with another mark belongs to a request that somebody gave up on.
        if properties.correlation_id == mark:
            print(f"answer {body.decode()}")
            break
    channel.cancel()
