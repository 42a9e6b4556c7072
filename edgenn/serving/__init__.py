"""A model behind HTTP: pictures come in, labels go out, and no client can make the process grow or stop.

    connection ► app (who asks, may it, what for) ► pool of interpreters ► answer

`server` starts and drains it, `connection` bounds what a client may do to a socket, `app` holds the routes, `pool` the
interpreters and the queue before them, `open_inference` the KServe v2 protocol, `multipart` forms, `limits` every
bound, `access` the token, `metrics` what Prometheus reads. Nothing here trains, converts or writes results.
"""
