"""The operator's side of a node: a socket in its data folder that takes requests and answers them.

A request is a JSON object in one line, `{"do": "cluster status", …}`; its answer is one line,
`{"ok": …}` or `{"error": {"kind": …, "text": …, "remedy": …}}`. Each thing that can be asked for
is one function in a module of its own, put into the table of `Controls` by `verbs`.
"""
