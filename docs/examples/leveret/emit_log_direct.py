"""Send a log line under its severity."""

from common import arguments, run

from leveret.client import connect

parser = arguments("Send a log line under its severity.")
parser.add_argument("severity", nargs="?", default="info")
parser.add_argument("text", nargs="*", default=["a", "hare", "ran", "by"])
options = parser.parse_args()
line = " ".join(options.text)


async def main() -> None:
    async with connect(options.url) as connection, connection.channel() as channel:
        # A direct exchange compares the routing key with the key of each binding.
        await channel.declare_exchange("logs.direct", "direct", durable=False)
        await channel.publish(line.encode(), options.severity, exchange="logs.direct")
        print(f"sent {options.severity}: {line}")


run(main)
