"""A strict stand-in for InfluxDB 2's write API, by its documentation: [measurement, {tag: value}, {field: text}, nanoseconds] of each point.
See recorder.py.

A point whose text has the word odd in it is of another type, and with it its whole request is refused. Mode login: no token is known.
"""

import json
import re
from urllib.parse import parse_qs, urlsplit

from recorder import serve


def failed(status, code, message):
    return status, json.dumps({"code": code, "message": message}).encode(), {}, []


def parts(text, ends):
    """Up to one of these letters outside of an escape; the letter, and what is behind it."""
    out, at = "", 0
    while at < len(text):
        if text[at] == "\\" and at + 1 < len(text) and text[at + 1] in ",= ":
            out, at = out + text[at + 1], at + 2
        elif text[at] in ends:
            return out, text[at], text[at + 1 :]
        else:
            assert text[at] != "\n", "a line ends inside of a name"
            out, at = out + text[at], at + 1
    raise ValueError(f"unable to parse {text!r}")


def points(text):
    found = []
    while text:
        measurement, end, text = parts(text, ", ")
        assert measurement and not measurement.startswith(("#", "_")), "missing measurement"
        tags = {}
        while end == ",":
            key, end, text = parts(text, "=")
            value, end, text = parts(text, ", ")
            assert key and value, "missing tag value"
            tags[key] = value
        field, _, text = parts(text, "=")
        assert field and text.startswith('"'), "a field that is no text"
        match = re.match(r'"((?:[^"\\]|\\["\\])*)" (\d{19})\n', text)
        assert match, f"unable to parse the value in {text!r}"
        found.append([measurement, tags, {field: re.sub(r"\\(.)", r"\1", match[1])}, int(match[2])])
        text = text[match.end() :]
    return found


def judge(path, headers, body, mode):
    url = urlsplit(path)
    query = parse_qs(url.query, strict_parsing=True)
    assert url.path == "/api/v2/write" and set(query) == {"org", "bucket", "precision"}, path
    if mode == "login" or headers["Authorization"] != "Token t0ken":
        return failed(401, "unauthorized", "unauthorized access")
    if query["org"] != ["my plant"] or query["bucket"] != ["b&c"] or query["precision"] != ["ns"]:
        return failed(404, "not found", "bucket not found")
    taken = points(body.decode())
    if any("odd" in value for point in taken for value in point[2].values()):
        return failed(422, "unprocessable entity", "field type conflict")
    return 204, b"", {}, taken


serve(judge)
