"""A camera that speaks ONVIF, strictly, driven over standard input.

Arguments: its port, and the UDP port on which it hears WS-Discovery. Requests are read by Python's own XML parser; what the
specifications do not allow is refused, and kept for `faults`. Every line of input is a command, answered by one line:
  set NAME VALUE       -> ok; one of its settings
  get NAME             -> the setting
  mode WORD...         -> ok; what is odd about it from now on, as below
  say TOPIC ITEM VALUE OPERATION SOURCE... -> ok; a message for all pull points; SOURCE is NAME=VALUE
  ptz                  -> what it was told to do, one after the other
  count OPERATION      -> how often that was asked for
  points               -> how many pull points there are
  drop                 -> ok; all pull points are gone
  faults               -> what was wrong with requests, or none
  bodies               -> what was asked for, each once, in Base64
Modes: token and digest and both (which logins it takes), hour (its clock is an hour ahead), noclock (GetSystemDateAndTime wants a
login), nat (addresses are those of somebody else), wrongport (its picture is at a port of its own, at the right address), old (it has
no GetServices), media2, noptz, rtsp (its picture is rtsp://), norenew, nosync, nowait (pulls are answered at once), closes (after
each answer), silent, text, deep, entity, huge, cut, faulty, forbidden (everything that writes), slowptz (moves are not answered), dropcreate and
droppull (the connection is reset at CreatePullPointSubscription, or at PullMessages), local (its clock is told in its own zone alone, which
is the setting `zone`), blanks (before the colons of its headers), latin (what it answers is in ISO-8859-1).
"""

import base64
import hashlib
import socket
import struct
import sys
import threading
import time
import uuid
import xml.etree.ElementTree as ET
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from xml.sax.saxutils import escape, quoteattr

S = "http://www.w3.org/2003/05/soap-envelope"
WSA = "http://www.w3.org/2005/08/addressing"
WSSE = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd"
WSU = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-utility-1.0.xsd"
TT = "http://www.onvif.org/ver10/schema"
TDS = "http://www.onvif.org/ver10/device/wsdl"
TRT = "http://www.onvif.org/ver10/media/wsdl"
TR2 = "http://www.onvif.org/ver20/media/wsdl"
TPTZ = "http://www.onvif.org/ver20/ptz/wsdl"
TIMG = "http://www.onvif.org/ver20/imaging/wsdl"
TEV = "http://www.onvif.org/ver10/events/wsdl"
WSNT = "http://docs.oasis-open.org/wsn/b-2"
PREFIXES = f'xmlns:s="{S}" xmlns:wsa="{WSA}" xmlns:tt="{TT}" xmlns:tds="{TDS}" xmlns:trt="{TRT}" xmlns:tr2="{TR2}" xmlns:tptz="{TPTZ}" ' \
    f'xmlns:timg="{TIMG}" xmlns:tev="{TEV}" xmlns:wsnt="{WSNT}" xmlns:ter="http://www.onvif.org/ver10/error" xmlns:v="urn:vendor"'
PATHS = {"/onvif/device_service": TDS, "/onvif/media": TRT, "/onvif/media2": TR2, "/onvif/ptz": TPTZ, "/onvif/imaging": TIMG,
         "/onvif/events": TEV}
OPEN = ("GetSystemDateAndTime", "GetServices", "GetCapabilities")
USER, PASSWORD = "op", 'p<&">w'
REFERENCE = "urn:uuid:4d454930-0000-1000-8000-bcaec5c0ffee"

port = int(sys.argv[1])
lock = threading.Condition()
modes = {"token"}
values = {"Name": "door", "Brightness": "50", "Contrast": "0.5", "BitrateLimit": "1", "GuaranteedFrameRate": "true",
          "FrameRateLimit": "25", "Quality": "5", "zone": "EET-2"}
moves, faults, counts, nonces, digests, points, bodies = [], [], {}, set(), {}, {}, {}
position = {"x": "0", "y": "0", "z": "0"}
pictures = [0]


class Refused(Exception):
    def __init__(self, code, reason="", status=400):
        self.code, self.reason, self.status = code, reason, status


def now():
    return datetime.now(timezone.utc) + timedelta(hours=1 if "hour" in modes else 0)


def wrong(what):
    faults.append(what)
    raise Refused("ter:InvalidArgVal", what)


def address(path):
    host = "10.255.255.1:8099" if "nat" in modes else f"127.0.0.1:{port}"
    return f"http://{host}{path}"


def text(element, name):
    found = element.find(f".//{{*}}{name}")
    return None if found is None else (found.text or "")


def profile(body):
    token = text(body, "ProfileToken")
    if token not in ("main", "sub"):
        raise Refused("ter:NoProfile", f"no profile {token}")
    return token


class Dropped(Exception):
    pass


class Camera(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30

    def log_message(self, *_):
        pass

    def answer(self, status, kind, body, headers=()):
        body = body if isinstance(body, bytes) else body.encode()
        self.send_response(status)
        blank = " " if "blanks" in modes else ""
        self.send_header(f"Content-Type{blank}", kind)
        self.send_header(f"Content-Length{blank}", str(len(body)))
        for name, value in headers:
            self.send_header(name, value)
        if "closes" in modes:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self.wfile.write(body)

    def challenge(self):
        if "digest" not in modes and self.command == "POST":
            return []
        nonce = uuid.uuid4().hex
        digests[nonce] = 0
        return [("WWW-Authenticate", 'Basic realm="camera"'),
                ("WWW-Authenticate", f'Digest realm="cam, \\"1\\"", qop="auth", nonce="{nonce}", opaque="o=1", algorithm=MD5')]

    def has_digest(self):
        header = self.headers.get("Authorization")
        if header is None:
            return False
        if not header.startswith("Digest "):
            faults.append(f"a login in clear: {header}")
            return False
        from urllib.request import parse_http_list, parse_keqv_list
        given = parse_keqv_list(parse_http_list(header[7:]))
        nonce, count = given["nonce"], int(given["nc"], 16)
        if nonce not in digests:
            return False
        if count <= digests[nonce] or given["uri"] != self.path or given["opaque"] != "o=1" or given["qop"] != "auth":
            faults.append(f"a login that is none: {header}")
            return False
        digests[nonce] = count
        md5 = lambda of: hashlib.md5(of.encode()).hexdigest()
        secret = md5(f'{USER}:cam, "1":{PASSWORD}')
        wanted = md5(f"{secret}:{nonce}:{given['nc']}:{given['cnonce']}:auth:{md5(self.command + ':' + self.path)}")
        return given["response"] == wanted

    def do_GET(self):
        if self.path != "/snapshot.jpg?profile=1":
            return self.answer(404, "text/plain", "what?")
        if not self.has_digest():
            return self.answer(401, "text/plain", "who?", self.challenge())
        pictures[0] += 1
        self.answer(200, "image/jpeg", b"\xff\xd8picture %d\xff\xd9" % pictures[0])

    def do_POST(self):
        document = self.rfile.read(int(self.headers["Content-Length"]))
        if "silent" in modes:
            time.sleep(30)
        if "text" in modes:
            return self.answer(200, "text/html", "<html>log in")
        for mode, body in (("deep", "<a>" * 5000), ("entity", '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'), ("huge", "<a>" + " " * (600 << 10)),
                           ("cut", "<s:Envelope")):
            if mode in modes:
                return self.answer(200, "application/soap+xml", body)
        try:
            said = self.asked(document)
            whole = f"<s:Envelope {PREFIXES}><s:Header/><s:Body>{said}</s:Body></s:Envelope>"
            if "latin" in modes:
                whole = f"<?xml version='1.0' encoding='ISO-8859-1'?>{whole}".encode("latin-1")
            self.answer(200, "application/soap+xml" if "latin" in modes else "application/soap+xml; charset=utf-8", whole)
        except Dropped:
            self.close_connection = True
            # Not an orderly end.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        except Refused as refused:
            headers = self.challenge() if refused.status == 401 else []
            self.answer(refused.status, "application/soap+xml; charset=utf-8",
                        f"<s:Envelope {PREFIXES}><s:Body><s:Fault><s:Code><s:Value>s:Sender</s:Value><s:Subcode><s:Value>{refused.code}"
                        f"</s:Value></s:Subcode></s:Code><s:Reason><s:Text xml:lang='en'>{escape(refused.reason)}</s:Text></s:Reason>"
                        "</s:Fault></s:Body></s:Envelope>", headers)

    def asked(self, document):
        envelope = ET.fromstring(document)
        header, body = envelope.find(f"{{{S}}}Header"), envelope.find(f"{{{S}}}Body")
        if envelope.tag != f"{{{S}}}Envelope" or body is None or len(body) != 1:
            wrong("no envelope of SOAP 1.2")
        body = body[0]
        namespace, operation = body.tag[1:].split("}")
        counts[operation] = counts.get(operation, 0) + 1
        if ("dropcreate" in modes and operation == "CreatePullPointSubscription") or ("droppull" in modes and operation == "PullMessages"):
            raise Dropped
        bodies[operation] = base64.b64encode(ET.tostring(body)).decode()
        kind = self.headers["Content-Type"]
        if not kind.startswith("application/soap+xml; charset=utf-8; action="):
            wrong(f"Content-Type is {kind}")
        at = PATHS.get(self.path.split("?")[0])
        if "old" in modes and operation == "GetServices":
            raise Refused("ter:ActionNotSupported", "what is that?")
        if not self.path.startswith("/onvif/point/") and (at != namespace or f"{namespace}/" not in kind):
            wrong(f"{operation} of {namespace} at {self.path}, as {kind}")
        self.logged_in(header, operation)
        if "faulty" in modes and operation not in OPEN:
            raise Refused("ter:OutofMemory", "too\nmany", 503)
        if "forbidden" in modes and not operation.startswith("Get"):
            raise Refused("ter:NotAuthorized", "not for you", 400)
        if self.path.startswith("/onvif/point/"):
            return self.point(header, body, operation)
        handler = getattr(self, operation, None)
        if handler is None:
            raise Refused("ter:ActionNotSupported", operation, 500)
        return handler(body)

    def logged_in(self, header, operation):
        if operation in OPEN and not ("noclock" in modes and operation == "GetSystemDateAndTime"):
            return
        token = None if header is None else header.find(f"{{{WSSE}}}Security/{{{WSSE}}}UsernameToken")
        digest = self.has_digest()
        if token is not None and self.headers.get("Authorization") is not None:
            wrong("two logins at once")
        if digest and ("digest" in modes or "both" in modes):
            return
        if token is None or not ("token" in modes or "both" in modes):
            raise Refused("ter:NotAuthorized", "who are you?", 401 if "digest" in modes else 400)
        given, password = token.find(f"{{{WSSE}}}Nonce"), token.find(f"{{{WSSE}}}Password")
        created = token.find(f"{{{WSU}}}Created").text
        nonce = base64.b64decode(given.text, validate=True)
        if not password.get("Type").endswith("#PasswordDigest") or not given.get("EncodingType").endswith("#Base64Binary"):
            wrong("a token of another kind")
        if len(nonce) < 16 or nonce in nonces:
            wrong("a nonce that is short, or was there before")
        nonces.add(nonce)
        age = now() - datetime.strptime(created, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
        wanted = base64.b64encode(hashlib.sha1(nonce + created.encode() + PASSWORD.encode()).digest()).decode()
        if abs(age) > timedelta(seconds=60) or token.find(f"{{{WSSE}}}Username").text != USER or password.text != wanted:
            raise Refused("ter:NotAuthorized", "not you", 400)

    def GetSystemDateAndTime(self, _):
        at = now()
        if "local" in modes:
            # Two hours east of Greenwich, whatever it calls that.
            at += timedelta(hours=2)
            return "<tds:GetSystemDateAndTimeResponse><tds:SystemDateAndTime><tt:DateTimeType>Manual</tt:DateTimeType>" \
                f"<tt:TimeZone><tt:TZ>{escape(values['zone'])}</tt:TZ></tt:TimeZone><tt:LocalDateTime>" \
                f"<tt:Time><tt:Hour>{at.hour}</tt:Hour><tt:Minute>{at.minute}</tt:Minute><tt:Second>{at.second}</tt:Second></tt:Time>" \
                f"<tt:Date><tt:Year>{at.year}</tt:Year><tt:Month>{at.month}</tt:Month><tt:Day>{at.day}</tt:Day></tt:Date></tt:LocalDateTime>" \
                "</tds:SystemDateAndTime></tds:GetSystemDateAndTimeResponse>"
        return "<tds:GetSystemDateAndTimeResponse><tds:SystemDateAndTime><tt:DateTimeType>NTP</tt:DateTimeType><tt:UTCDateTime>" \
            f"<tt:Time><tt:Hour>{at.hour}</tt:Hour><tt:Minute>{at.minute}</tt:Minute><tt:Second>{at.second}</tt:Second></tt:Time>" \
            f"<tt:Date><tt:Year>{at.year}</tt:Year><tt:Month>{at.month}</tt:Month><tt:Day>{at.day}</tt:Day></tt:Date></tt:UTCDateTime>" \
            "</tds:SystemDateAndTime></tds:GetSystemDateAndTimeResponse>"

    def places(self):
        left_out = ({TRT} if "media2" in modes else {TR2}) | ({TPTZ} if "noptz" in modes else set())
        return [(path, name) for path, name in PATHS.items() if name not in left_out]

    def GetServices(self, _):
        services = "".join(f"<tds:Service><tds:Namespace>{name}</tds:Namespace><tds:XAddr>{address(path)}</tds:XAddr><tds:Version/></tds:Service>"
                           for path, name in self.places())
        return f"<tds:GetServicesResponse>{services}</tds:GetServicesResponse>"

    def GetCapabilities(self, _):
        names = {TRT: "Media", TPTZ: "PTZ", TIMG: "Imaging", TEV: "Events"}
        places = "".join(f"<tt:{names[name]}><tt:XAddr>{address(path)}</tt:XAddr></tt:{names[name]}>"
                         for path, name in self.places() if name in names)
        return f"<tds:GetCapabilitiesResponse><tds:Capabilities>{places}</tds:Capabilities></tds:GetCapabilitiesResponse>"

    def GetDeviceInformation(self, _):
        return "<tds:GetDeviceInformationResponse><tds:Manufacturer>Stand &amp; In</tds:Manufacturer><tds:Model>M1</tds:Model>" \
            "<tds:FirmwareVersion>1.0</tds:FirmwareVersion><tds:SerialNumber>7</tds:SerialNumber><tds:HardwareId/></tds:GetDeviceInformationResponse>"

    def GetHostname(self, _):
        return f"<tds:GetHostnameResponse><tds:HostnameInformation><tt:FromDHCP>false</tt:FromDHCP><tt:Name>{escape(values['Name'])}</tt:Name>" \
            "</tds:HostnameInformation></tds:GetHostnameResponse>"

    def SetHostname(self, body):
        values["Name"] = text(body, "Name")
        return "<tds:SetHostnameResponse/>"

    def SystemReboot(self, _):
        moves.append("reboot")
        return "<tds:SystemRebootResponse><tds:Message>in a moment</tds:Message></tds:SystemRebootResponse>"

    def GetImagingSettings(self, _):
        return f"<timg:GetImagingSettingsResponse><timg:ImagingSettings><tt:Brightness>{values['Brightness']}</tt:Brightness>" \
            f"<tt:Contrast>{values['Contrast']}</tt:Contrast></timg:ImagingSettings></timg:GetImagingSettingsResponse>"

    def SetImagingSettings(self, body):
        for name in ("Brightness", "Contrast"):
            values[name] = text(body, name) or values[name]
        return "<timg:SetImagingSettingsResponse/>"

    def GetVideoEncoderConfiguration(self, body):
        if text(body, "ConfigurationToken") != "main":
            raise Refused("ter:NoConfig")
        return f"<trt:GetVideoEncoderConfigurationResponse><trt:Configuration token='main' GuaranteedFrameRate={quoteattr(values['GuaranteedFrameRate'])}>" \
            f"<tt:Quality>{values['Quality']}</tt:Quality><tt:RateControl><tt:FrameRateLimit>{values['FrameRateLimit']}</tt:FrameRateLimit>" \
            f"<tt:BitrateLimit>{values['BitrateLimit']}</tt:BitrateLimit></tt:RateControl></trt:Configuration></trt:GetVideoEncoderConfigurationResponse>"

    def SetVideoEncoderConfiguration(self, body):
        for name in ("Quality", "BitrateLimit"):
            values[name] = text(body, name) or values[name]
        given = body.find(f"{{{TRT}}}Configuration").get("GuaranteedFrameRate")
        values["GuaranteedFrameRate"] = given or values["GuaranteedFrameRate"]
        return "<trt:SetVideoEncoderConfigurationResponse/>"

    def GetProfiles(self, body):
        if body.tag.startswith(f"{{{TR2}}}"):
            return "<tr2:GetProfilesResponse><tr2:Profiles token='main'><tr2:Name>first</tr2:Name></tr2:Profiles><tr2:Profiles token='sub'>" \
                "<tr2:Name>second</tr2:Name><tr2:Configurations><tr2:PTZ token='p'/></tr2:Configurations></tr2:Profiles></tr2:GetProfilesResponse>"
        return "<trt:GetProfilesResponse><trt:Profiles token='main' fixed='true'><tt:Name>first</tt:Name></trt:Profiles>" \
            "<trt:Profiles token='sub'><tt:Name>second</tt:Name><tt:PTZConfiguration token='p'/></trt:Profiles></trt:GetProfilesResponse>"

    def uri(self, body, operation, uri):
        if body.tag.startswith(f"{{{TR2}}}"):
            return f"<tr2:{operation}Response><tr2:Uri>{escape(uri)}</tr2:Uri></tr2:{operation}Response>"
        return f"<trt:{operation}Response><trt:MediaUri><tt:Uri>{escape(uri)}</tt:Uri></trt:MediaUri></trt:{operation}Response>"

    def GetStreamUri(self, body):
        if text(body, "Protocol") != "RTSP" or ("media2" not in modes and text(body, "Stream") != "RTP-Unicast"):
            wrong("no way of a stream")
        return self.uri(body, "GetStreamUri", f"rtsp://op:secret@192.0.2.7:554/{profile(body)}?a=1&b=2")

    def GetSnapshotUri(self, body):
        profile(body)
        at = "rtsp://127.0.0.1/x" if "rtsp" in modes else address("/snapshot.jpg?profile=1")
        if "wrongport" in modes:
            at = f"http://127.0.0.1:{values['port']}/snapshot.jpg?profile=1"
        return self.uri(body, "GetSnapshotUri", at)

    def GetStatus(self, body):
        if profile(body) != "sub":
            raise Refused("ter:NoPTZProfile")
        return "<tptz:GetStatusResponse><tptz:PTZStatus><tt:Position>" \
            f"<tt:PanTilt x='{position['x']}' y='{position['y']}'/><tt:Zoom x='{position['z']}'/></tt:Position>" \
            "<tt:MoveStatus><tt:PanTilt>IDLE</tt:PanTilt></tt:MoveStatus></tptz:PTZStatus></tptz:GetStatusResponse>"

    def move(self, body, name, part):
        if profile(body) != "sub":
            raise Refused("ter:NoPTZProfile")
        inside = body.find(f"{{{TPTZ}}}{part}")
        pan, zoom = inside.find(f"{{{TT}}}PanTilt"), inside.find(f"{{{TT}}}Zoom")
        if pan is not None and name == "absolute":
            position.update(x=pan.get("x"), y=pan.get("y"))
        moves.append(" ".join([name] + ([pan.get("x"), pan.get("y")] if pan is not None else []) + (["zoom", zoom.get("x")] if zoom is not None else [])))
        with lock:
            lock.notify_all()
        if "slowptz" in modes:
            time.sleep(30)

    def ContinuousMove(self, body):
        if not (text(body, "Timeout") or "").startswith("PT"):
            wrong("a move without an end")
        self.move(body, "continuous", "Velocity")
        return "<tptz:ContinuousMoveResponse/>"

    def AbsoluteMove(self, body):
        self.move(body, "absolute", "Position")
        return "<tptz:AbsoluteMoveResponse/>"

    def RelativeMove(self, body):
        self.move(body, "relative", "Translation")
        return "<tptz:RelativeMoveResponse/>"

    def Stop(self, body):
        profile(body)
        moves.append("stop")
        return "<tptz:StopResponse/>"

    def GetPresets(self, body):
        profile(body)
        return "<tptz:GetPresetsResponse><tptz:Preset token='1'><tt:Name>door</tt:Name></tptz:Preset><tptz:Preset token='2'><tt:Name>gate</tt:Name>" \
            "</tptz:Preset></tptz:GetPresetsResponse>"

    def GotoPreset(self, body):
        moves.append("preset " + text(body, "PresetToken"))
        return "<tptz:GotoPresetResponse/>"

    def CreatePullPointSubscription(self, body):
        if not (text(body, "InitialTerminationTime") or "").startswith("PT"):
            wrong("a pull point without an end")
        if len(points) >= 2:
            raise Refused("ter:OutofMemory", "too many pull points", 500)
        number = uuid.uuid4().hex
        points[number] = {"until": time.time() + seconds(text(body, "InitialTerminationTime")), "waiting": []}
        return f"<tev:CreatePullPointSubscriptionResponse><tev:SubscriptionReference><wsa:Address>{address('/onvif/point/x')}</wsa:Address>" \
            f"<wsa:ReferenceParameters><v:Point v:kind='a&amp;b'>{number}</v:Point></wsa:ReferenceParameters></tev:SubscriptionReference>" \
            "<wsnt:CurrentTime/><wsnt:TerminationTime/></tev:CreatePullPointSubscriptionResponse>"

    def point(self, header, body, operation):
        action, to = header.find(f"{{{WSA}}}Action"), header.find(f"{{{WSA}}}To")
        if action is None or not action.text.endswith(f"/{operation}Request") or action.text not in self.headers["Content-Type"]:
            wrong(f"{operation} without its action")
        if to is None or to.text != address("/onvif/point/x") or header.find(f"{{{WSA}}}MessageID") is None:
            wrong(f"{operation} without the pull point's own address")
        back = header.find("{urn:vendor}Point")
        if back is None or back.get("{urn:vendor}kind") != "a&b":
            wrong(f"{operation} without the pull point's number")
        number = back.text
        with lock:
            point = points.get(number)
            if point is None or point["until"] < time.time():
                points.pop(number, None)
                raise Refused("wsrf-rw:ResourceUnknownFault", "gone", 500)
            if operation == "Renew":
                if "norenew" in modes:
                    raise Refused("ter:ActionNotSupported", "no", 500)
                point["until"] = time.time() + seconds(text(body, "TerminationTime"))
                return "<wsnt:RenewResponse><wsnt:TerminationTime/></wsnt:RenewResponse>"
            if operation == "Unsubscribe":
                points.pop(number)
                return "<wsnt:UnsubscribeResponse/>"
            if operation == "SetSynchronizationPoint":
                if "nosync" in modes:
                    raise Refused("ter:ActionNotSupported", "no", 500)
                point["waiting"] += list(latest.values())
                return "<tev:SetSynchronizationPointResponse/>"
            if operation != "PullMessages":
                raise Refused("ter:ActionNotSupported", operation, 500)
            if not text(body, "MessageLimit"):
                wrong("a pull without a limit")
            wait = 0 if "nowait" in modes else seconds(text(body, "Timeout"))
            lock.wait_for(lambda: point["waiting"] or number not in points, wait)
            if number not in points:
                raise Refused("wsrf-rw:ResourceUnknownFault", "gone", 500)
            limit = int(text(body, "MessageLimit"))
            said, point["waiting"] = point["waiting"][:limit], point["waiting"][limit:]
            return f"<tev:PullMessagesResponse><tev:CurrentTime/><tev:TerminationTime/>{''.join(said)}</tev:PullMessagesResponse>"


latest = {}


def seconds(duration):
    return float(duration.removeprefix("PT").removesuffix("S"))


def say(topic, item, value, operation, *source):
    items = "".join(f"<tt:SimpleItem Name={quoteattr(one.split('=')[0])} Value={quoteattr(one.split('=')[1])}/>" for one in source)
    message = f"<wsnt:NotificationMessage><wsnt:Topic Dialect='http://www.onvif.org/ver10/tev/topicExpression/ConcreteSet'>{topic}</wsnt:Topic>" \
        f"<wsnt:Message><tt:Message UtcTime='{now():%Y-%m-%dT%H:%M:%SZ}' PropertyOperation='{operation}'><tt:Source>{items}</tt:Source>" \
        f"<tt:Data><tt:SimpleItem Name={quoteattr(item)} Value={quoteattr(value)}/></tt:Data></tt:Message></wsnt:Message></wsnt:NotificationMessage>"
    with lock:
        latest[topic, source] = message
        for point in points.values():
            point["waiting"].append(message)
        lock.notify_all()


def discovered(hears):
    """Answers to a Probe for one of its types, to whoever has asked."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", hears))
    while True:
        datagram, sender = server.recvfrom(65536)
        envelope = ET.fromstring(datagram)
        addressing = "{http://schemas.xmlsoap.org/ws/2004/08/addressing}"
        number = envelope.find(f".//{addressing}MessageID").text
        types = envelope.find(".//{http://schemas.xmlsoap.org/ws/2005/04/discovery}Types").text
        counts["Probe"] = counts.get("Probe", 0) + 1
        if types != "dn:NetworkVideoTransmitter" or "silent" in modes:
            continue
        for relates_to, reference in (("urn:uuid:0", REFERENCE), (number, "urn:uuid:1"), (number, REFERENCE)):
            server.sendto(f"""<e:Envelope xmlns:e="{S}" xmlns:w="http://schemas.xmlsoap.org/ws/2004/08/addressing"
                xmlns:d="http://schemas.xmlsoap.org/ws/2005/04/discovery"><e:Header><w:RelatesTo>{relates_to}</w:RelatesTo></e:Header>
                <e:Body><d:ProbeMatches><d:ProbeMatch><w:EndpointReference><w:Address>{reference}</w:Address></w:EndpointReference>
                <d:XAddrs>http://10.255.255.1:{port if reference == REFERENCE else 9}/onvif/device_service</d:XAddrs></d:ProbeMatch></d:ProbeMatches></e:Body>
                </e:Envelope>""".encode(), sender)


ThreadingHTTPServer.allow_reuse_address = True
server = ThreadingHTTPServer(("127.0.0.1", port), Camera)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()
threading.Thread(target=discovered, args=[int(sys.argv[2])], daemon=True).start()
print("ready", flush=True)
for line in sys.stdin:
    verb, *rest = line.rstrip("\n").split(" ")
    answer = "ok"
    if verb == "set":
        values[rest[0]] = " ".join(rest[1:])
    elif verb == "get":
        answer = values[rest[0]]
    elif verb == "mode":
        modes.clear()
        modes.update(rest)
    elif verb == "say":
        say(*rest)
    elif verb == "ptz":
        answer = ", ".join(moves) or "none"
    elif verb == "count":
        answer = str(counts.get(rest[0], 0))
    elif verb == "points":
        with lock:
            answer = str(len(points))
    elif verb == "drop":
        with lock:
            points.clear()
            lock.notify_all()
    elif verb == "bodies":
        answer = " ".join(bodies.values())
    elif verb == "faults":
        answer = "; ".join(faults) or "none"
    print(answer, flush=True)
