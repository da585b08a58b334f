"""Tell everyone who listens at this moment; nobody listening is no error."""

from common import arguments, connect

parser = arguments("Send a log line to all who listen.")
parser.add_argument("text", nargs="*", default=["info:", "a", "hare", "ran", "by"])
options = parser.parse_args()
line = " ".join(options.text)

with connect(options.url) as connection:
    channel = connection.channel()
    # A fanout exchange copies a message to every queue bound to it, whatever the routing key.
    channel.exchange_declare(exchange="logs", exchange_type="fanout")
    channel.basic_publish(exchange="logs", routing_key="", body=line.encode())
    print(f"sent {line}")
