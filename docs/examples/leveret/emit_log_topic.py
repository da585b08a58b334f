"""Send a log line under a key of words with dots between them, say `kernel.warning`."""

from common import arguments, run

from leveret.client import connect

parser = arguments("Send a log line under a key.")
parser.add_argument("key", nargs="?", default="field.info")
parser.add_argument("text", nargs="*", default=["a", "hare", "ran", "by"])
options = parser.parse_args()
line = " ".join(options.text)


async def main() -> None:
    async with connect(options.url) as connection, connection.channel() as channel:
        await channel.declare_exchange("logs.topic", "topic", durable=False)
        await channel.publish(line.encode(), options.key, exchange="logs.topic")
        print(f"sent {options.key}: {line}")


run(main)
