"""A strict stand-in for TDengine's REST interface, by its documentation: [table, super table, [columns]] of each row. See recorder.py.

It knows the statements that make a super table and that insert; a row in a table whose super table is not there is refused, and so is one
whose text has the word odd in it: as too long. Mode forget: all super tables are gone.
"""

import base64
import json
import re

from recorder import serve

made = set()
NAME = r"`([^`\x00-\x1f]{1,192})`"
TEXT = r"'((?:[^'\\\n]|\\['\"\\nrt%_])*)'"
CREATE = re.compile(
    f"CREATE STABLE IF NOT EXISTS {NAME} "
    r"\(ts TIMESTAMP, deviceid BINARY\(\d+\), propertyname BINARY\(\d+\), data BINARY\(\d+\), type BINARY\(\d+\)\) "
    r"TAGS \(location BINARY\(\d+\)\)"
)
ROW = re.compile(
    rf" {NAME} USING {NAME} TAGS \({TEXT}\) VALUES \({TEXT}, {TEXT}, {TEXT}, {TEXT}, {TEXT}\)"
)
LETTERS = {"n": "\n", "r": "\r", "t": "\t"}


def plain(text):
    return re.sub(r"\\(.)", lambda found: LETTERS.get(found[1], found[1]), text)


def said(code, desc=""):
    answer = {"code": code, "desc": desc} if code else {"code": 0, "column_meta": [], "data": [[1]], "rows": 1}
    return 200, json.dumps(answer).encode(), {}, []


def judge(path, headers, body, mode):
    login = base64.b64decode(headers["Authorization"].removeprefix("Basic ")).decode()
    if login != "root:pass'word":
        return 401, json.dumps({"code": 0x357, "desc": "Authentication failure"}).encode(), {}, []
    if path != "/rest/sql/plant":
        return said(0x388, "Database not exist")
    sql = body.decode()
    if mode == "forget":
        made.clear()
        return said(0x2603, "Table does not exist")
    if create := CREATE.fullmatch(sql):
        made.add(create[1])
        return said(0)
    if not sql.startswith("INSERT INTO "):
        return said(0x2600, f"syntax error near {sql[:40]}")
    rest, rows = sql[len("INSERT INTO") :], []
    while rest:
        row = ROW.match(rest)
        if not row:
            return said(0x2600, f"syntax error near {rest[:80]}")
        if row[2] not in made:
            return said(0x2603, "Table does not exist")
        columns = [plain(text) for text in row.groups()[3:]]
        if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", columns[0]):
            return said(0x2600, f"invalid timestamp {columns[0]}")
        if "odd" in columns[3]:
            return said(0x2653, "Value too long for column/tag: data")
        rows.append([row[1], row[2], columns])
        rest = rest[row.end() :]
    status, answer, headers, _ = said(0)
    return status, answer, headers, rows


serve(judge)
