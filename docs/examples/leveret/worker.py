"""Do tasks one at a time; start several workers to share the work among them."""

import trio
from common import arguments, run, until_stopped

from leveret.client import Consumer, Message, connect

options = arguments("Do the tasks that new_task.py sends.").parse_args()


async def work(value: object, message: Message) -> None:
    print(f"started {message.body.decode()}", flush=True)
    await trio.sleep(message.body.count(b".") / 10)
    print(f"finished {message.body.decode()}", flush=True)
    # Only now the task is acknowledged. If this worker dies before, another one gets it.


async def main() -> None:
    async with connect(options.url) as connection:
        async with connection.channel() as channel:
            await channel.declare_queue("tasks")
        # No second task before the first is done: a slow one does not hold up those behind it.
        # When the worker is stopped, the task under way has half a minute to end.
        consumer = Consumer(connection, "tasks", work, concurrency=1, held_max=0, drain_s=30)
        await until_stopped(consumer.run)


run(main)
