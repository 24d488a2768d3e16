"""Looks at requests by ONVIF's schemas, which the package onvif-zeep-async has in its WSDLs.

It says `ready` first. Every line of input is the element in a request's body, in Base64, and is answered by `ok` or by what is wrong.
"""

import base64
import sys
from importlib.metadata import files

from lxml import etree

XS = "{http://www.w3.org/2001/XMLSchema}"
places = [file.locate() for file in files("onvif-zeep-async")]
schemas = {}
for place in places:
    if place.name in ("devicemgmt.wsdl", "media.wsdl", "ptz.wsdl", "imaging.wsdl", "events.wsdl"):
        for schema in etree.parse(str(place)).iter(f"{XS}schema"):
            # With the namespaces that are declared around it.
            alone = etree.fromstring(etree.tostring(schema), base_url=str(place))
            schemas[schema.get("targetNamespace")] = etree.XMLSchema(alone)
    elif place.name == "b-2.xsd":
        schemas["http://docs.oasis-open.org/wsn/b-2"] = etree.XMLSchema(etree.parse(str(place)))
print("ready", flush=True)
for line in sys.stdin:
    element = etree.fromstring(base64.b64decode(line))
    schema = schemas.get(etree.QName(element).namespace)
    if schema is None:
        print(f"no schema of {element.tag}", flush=True)
    else:
        schema.validate(element)
        print(" ".join(str(schema.error_log.last_error or "ok").split()), flush=True)
