"""The client without I/O: what the trio face and the blocking face have in common.

It owns the conversation with the broker over all the transports that a connection goes through:
channels and what they ask, the window of unconfirmed publishes, consumers, acknowledgements to be
collapsed, and the topology to declare again. It knows no socket, no clock and no chance; whoever
has those moves the octets:

    core.attach(login)                # a transport is there
    core.receive(octets)              # what it gave; outcomes are done, consumers filled
    core.take_output()                # what it is to take; `core.wake` is called when there is some
    core.lost(error)                  # it is gone; in robust mode `attach` may follow

Verbs (`channel.publish`, `channel.ask` …) are plain calls that return an `Outcome`, something that
is done sooner or later; only the faces know how to wait for one.
"""
