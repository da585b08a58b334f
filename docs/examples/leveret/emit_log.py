"""Tell everyone who listens at this moment; nobody listening is no error."""

from common import arguments, run

from leveret.client import connect

parser = arguments("Send a log line to all who listen.")
parser.add_argument("text", nargs="*", default=["info:", "a", "hare", "ran", "by"])
options = parser.parse_args()
line = " ".join(options.text)


async def main() -> None:
    async with connect(options.url) as connection, connection.channel() as channel:
        # A fanout exchange copies a message to every queue bound to it, whatever the routing key.
        await channel.declare_exchange("logs", "fanout", durable=False)
        await channel.publish(line.encode(), exchange="logs")
        print(f"sent {line}")


run(main)
