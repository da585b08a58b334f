"""Put one message into the queue `hello`."""

from common import arguments, run

from leveret.client import connect

parser = arguments("Send one message.")
parser.add_argument("text", nargs="?", default="Hello, hare!")
options = parser.parse_args()


async def main() -> None:
    async with connect(options.url) as connection, connection.channel() as channel:
        # Whoever comes first creates the queue; for the second, the same declare changes nothing.
        await channel.declare_queue("hello", durable=False)
        # The exchange without a name hands a message to the queue that the routing key names.
        await channel.publish(options.text.encode(), "hello")
        print(f"sent {options.text}")


run(main)
