"""Prints what a web server answers: page.py URL."""

import sys
import urllib.request

direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
print(direct.open(sys.argv[1], timeout=2).read(65536).decode())
