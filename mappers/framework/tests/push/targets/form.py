"""Takes forms: [path, {name: value}, the raw body] of each. See recorder.py.

Modes: busy (503), odd (refuses what has the word odd in it), elsewhere (a redirect to /elsewhere).
"""

from urllib.parse import parse_qsl

from recorder import serve


def judge(path, headers, body, mode):
    assert headers["Content-Type"] == "application/x-www-form-urlencoded", headers
    if mode == "busy":
        return 503, b"later", {}, []
    if mode == "elsewhere":
        return 302, b"", {"Location": "/elsewhere"}, []
    pairs = parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=True)
    assert len(pairs) == 2 and pairs[1][0] == "time", pairs
    if mode == "odd" and "odd" in pairs[0][1]:
        return 422, b"that is odd", {}, []
    return 200, b"ok", {}, [[path, pairs, body.decode()]]


serve(judge)
