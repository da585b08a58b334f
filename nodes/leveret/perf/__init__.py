"""Load for a broker: producers and consumers in processes of their own, and what they measured.

`run` is the whole of one run; `plan` says what is to be done. It knows a broker by its protocol
alone, and works against any that speaks AMQP 0-9-1.
"""
