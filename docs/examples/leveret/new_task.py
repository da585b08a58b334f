"""Give the workers a task; every dot in its text is a tenth of a second of work."""

from common import arguments, run

from leveret.client import connect

parser = arguments("Give the workers a task.")
parser.add_argument("text", nargs="*", default=["dig", "a", "burrow..."])
options = parser.parse_args()
task = " ".join(options.text)


async def main() -> None:
    async with connect(options.url) as connection, connection.channel() as channel:
        # A queue is durable, and a message persistent, unless you say otherwise: both are there
        # again after the broker's restart.
        await channel.declare_queue("tasks")
        await channel.publish(task.encode(), "tasks")
        print(f"sent {task}")


run(main)
