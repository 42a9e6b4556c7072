"""What a client may do to a socket: every phase ends, every size has its most."""

import contextlib
import socket

import pytest

from tests.serving.conftest import until

HEAD = b"POST /classify HTTP/1.1\r\nHost: x\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def received(connection: socket.socket) -> bytes:
    """All until the server closes."""
    content = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := connection.recv(65536):
            content += chunk
    return content


def poured(connection: socket.socket, content: bytes) -> bytes:
    """Send `content` again and again until the server has had enough; what it said."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        while True:
            connection.sendall(content)
            connection.setblocking(False)
            try:
                said = connection.recv(65536)
            except BlockingIOError:
                said = b""
            connection.settimeout(60)
            if said:
                return said
    return b""


@pytest.mark.parametrize(
    "sent",
    [
        b"",  # nothing at all
        b"\r\n",  # empty lines before a request
        HEAD,  # headers without an end
        HEAD + b"Content-Length: 10\r\n\r\nabc",  # a body that stops
        CHUNKED + b"5\r\nab",  # a chunk that stops
        b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n\r\nPOST",  # a second request that stops
    ],
)
def test_who_does_not_finish_is_sent_away(start, picture, sent):
    with start(header_time=0.05, body_time=0.05, idle_time=60) as server, server.socket() as connection:
        connection.sendall(sent)
        content = received(connection)  # it returns: the server closed
        assert content.rpartition(b"HTTP/1.1 ")[2].startswith(b"408")
        assert server.post(picture).status == 200
        assert server.metric("edgenn_in_flight") == 0


@pytest.mark.parametrize(
    ("start_of_it", "again", "status"),
    [
        (HEAD, b"X: " + b"a" * 4000 + b"\r\n", b"431"),  # headers without end
        (HEAD + b"X: ", b"a" * 4000, b"431"),  # one header without end
        (b"GET /", b"a" * 4000, b"431"),  # a path without end
        (CHUNKED + b"1\r\na\r\n1;", b"a" * 4000, b"431"),  # a chunk's extension without end
        (CHUNKED, b"4000\r\n" + b"a" * 0x4000 + b"\r\n", b"413"),  # a body without end
        (b"", b"\r\n" * 1000, b"431"),  # empty lines without end
        (b"\0\1\2", b"garbage", b"400"),  # no HTTP
    ],
)
def test_what_never_ends_is_cut(start, picture, start_of_it, again, status):
    with start(body=100_000) as server, server.socket() as connection:
        connection.sendall(start_of_it)
        said = poured(connection, again)
        # Nothing is said if the reset overtook the answer; then the count tells.
        assert said.startswith(b"HTTP/1.1 " + status) or any(
            server.metric(f'edgenn_requests_total{{endpoint="{who}",status="{status.decode()}"}}')
            for who in ("connection", "classify")
        )
        assert server.post(picture).status == 200


GET = b"GET /v2/health/live HTTP/1.1\r\nConnection: close\r\n"


@pytest.mark.parametrize(
    ("reads", "status"),
    [
        ([GET + b"X: " + b"a" * (127 << 10) + b"\r\n\r\n"], b"200"),  # just below
        ([GET + b"X: " + b"a" * (129 << 10) + b"\r\n\r\n"], b"431"),  # just above, and complete in one read
        ([GET + b"X: " + b"a" * (65 << 10), b"a" * (65 << 10) + b"\r\n\r\n"], b"431"),  # in two
        ([GET + (b"X: " + b"a" * 1000 + b"\r\n") * 131 + b"\r\n"], b"431"),  # many together
        ([b"GET /" + b"a" * (129 << 10) + b" HTTP/1.1\r\n\r\n"], b"431"),  # the path
        # A body in the same read does not make up for it, nor for what comes after it.
        ([HEAD + b"X: " + b"a" * (129 << 10) + b"\r\nContent-Length: 90000\r\n\r\n" + b"a" * 90_000], b"431"),
        ([CHUNKED + b"20000\r\n" + b"a" * (127 << 10), b"a" * 1024 + b"\r\n1;" + b"a" * (129 << 10)], b"431"),
        # A second request in the same read, and one that wishes for another protocol.
        ([b"GET / HTTP/1.1\r\n\r\n" + GET + b"X: " + b"a" * (129 << 10) + b"\r\n\r\n"], b"431"),
        ([HEAD + b"Connection: Upgrade\r\nUpgrade: h2c\r\nX: " + b"a" * (129 << 10) + b"\r\n\r\n"], b"431"),
    ],
)
def test_headers_count_however_they_are_read(server, reads, status):
    with server.socket() as client:
        name = client.getsockname()

        def connection():
            return next((it for it in list(server.server.server_state.connections) if it.client == name), None)

        until(connection)
        serving = connection()
        for read in reads:  # exactly these, which no sending can assure
            serving.loop.call_soon_threadsafe(serving.data_received, read)
        assert b"HTTP/1.1 " + status in received(client)


def test_trailers_without_end_are_cut(server):
    before = server.metric('edgenn_requests_total{endpoint="connection",status="431"}')
    with server.socket() as connection:
        connection.sendall(CHUNKED + b"0\r\nX: ")
        poured(connection, b"a" * 4000)
    assert server.metric('edgenn_requests_total{endpoint="connection",status="431"}') == before + 1


def test_a_declared_size_is_refused_before_it_is_sent(start):
    with start(body=1000) as server, server.socket() as connection:
        connection.sendall(HEAD + b"Content-Length: 1001\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 413")


def test_who_goes_on_sending_after_the_answer_is_cut_off(start):
    with start(body=1000, linger=0.05) as server, server.socket() as connection:
        connection.sendall(HEAD + b"Content-Length: 1000000000000\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 413")
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            while True:
                connection.sendall(b"a" * 65536)


def test_who_does_not_read_the_answers_is_cut_off(start):
    with start(write_time=0.05) as server:
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(60)
        connection.connect(("127.0.0.1", server.port))
        with connection, pytest.raises((BrokenPipeError, ConnectionResetError)):
            while True:
                connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 10)
        until(lambda: not server.server.server_state.connections)


def test_more_connections_than_allowed_are_refused(start):
    with start(connections=2) as server:
        with server.socket() as first, server.socket() as second:
            for connection in (first, second):
                connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
                assert connection.recv(65536).startswith(b"HTTP/1.1 200")
            with server.socket() as third:
                assert received(third).startswith(b"HTTP/1.1 503")
        until(lambda: not server.server.server_state.connections)
        assert server.ask("GET", "/v2/health/live").status == 200


def test_all_bodies_together_have_their_most(start, picture):
    with start(body=20_000, bodies=30_000) as server:
        with server.socket() as first, server.socket() as second:
            for connection in (first, second):
                connection.sendall(HEAD + b"Content-Length: 20000\r\n\r\n" + b"a" * 16_000)
            # One of them, whichever came second, is told.
            first.setblocking(False)
            second.setblocking(False)
            said = []

            def told():
                for connection in (first, second):
                    with contextlib.suppress(BlockingIOError):
                        said.append(connection.recv(65536))
                return said

            until(told)
            assert said[0].startswith(b"HTTP/1.1 503")
        until(lambda: server.metric("edgenn_in_flight") == 0)
        assert server.service._bodies == 0
        assert server.post(picture).status == 200


def test_a_client_that_leaves_takes_its_body_along(server, picture):
    with server.socket() as connection:
        connection.sendall(HEAD + b"Content-Length: 100000\r\n\r\n" + b"a" * 50_000)
        until(lambda: server.service._bodies == 50_000)
    until(lambda: server.service._bodies == 0)
    until(lambda: server.service.in_flight == 0)


def test_who_was_refused_is_not_heard_for_a_moment(start):
    ask = HEAD + b"Content-Length: 0\r\n\r\n"
    with start(queue=1, workers=1, back_off=1000.0) as server, server.socket() as refused:
        server.service.draining = True
        refused.sendall(ask)
        assert refused.recv(65536).startswith(b"HTTP/1.1 503")
        server.service.draining = False
        refused.sendall(ask)
        # Another client, who came later, is answered.
        assert server.post(b"").status == 400
        refused.setblocking(False)
        with pytest.raises(BlockingIOError):
            refused.recv(65536)


def test_the_application_asks_for_the_body_before_it_is_sent(server, picture):
    # curl does this for bodies above 1 MB.
    with server.socket() as connection:
        connection.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(picture))
        assert connection.recv(65536).startswith(b"HTTP/1.1 100")
        connection.sendall(picture)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("connection", "in_pieces"),
    [
        (b"Upgrade, HTTP2-Settings", False),  # curl --http2, and Java's HttpClient unless told otherwise
        (b"Upgrade, HTTP2-Settings", True),  # the body comes after the headers
        (b"close, Upgrade", False),  # and no further request
    ],
)
def test_a_wish_for_another_protocol_is_ignored(server, picture, connection, in_pieces):
    head = HEAD + b"Connection: %s\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n" % connection
    sized = b"Content-Length: %d\r\n\r\n" % len(picture), picture
    chunked = b"Transfer-Encoding: chunked\r\n\r\n", b"%x\r\n%s\r\n0\r\n\r\n" % (len(picture), picture)
    for headers, body in (sized, chunked):
        with server.socket() as client:
            if in_pieces:
                client.sendall(head + b"Expect: 100-continue\r\n" + headers)
                assert client.recv(65536).startswith(b"HTTP/1.1 100")
                client.sendall(body)
            else:
                client.sendall(head + headers + body)
            if b"close" not in connection:
                # What follows is HTTP/1.1 too, asked for or not.
                client.sendall(head + headers + body + HEAD + b"Connection: close\r\n" + headers + body)
            said = received(client)
        assert said.count(b"HTTP/1.1 200") == (1 if b"close" in connection else 3)
        assert said.count(b"HTTP/1.1 ") == said.count(b'"label"')


def test_requests_sent_ahead_are_answered_in_order_up_to_a_number(server):
    one = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    with server.socket() as connection:
        connection.sendall(one * 10 + one.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert received(connection).count(b"HTTP/1.1 200") == 11
    with server.socket() as connection:
        connection.sendall(one * 1000)
        assert b"HTTP/1.1 400" in received(connection)
