"""ipycam's virtual camera on loopback alone, driven over standard input.

Arguments: its port, and the UDP port on which it hears WS-Discovery. It says `ready` and its endpoint reference first. Every line of
input is a command, answered by one line:
  place -> pan, tilt and zoom, as its controller has them, and whether it moves
"""

import sys
import threading

import numpy
from ipycam import CameraConfig, IPCamera, IPCameraHTTPHandler, PTZPreset, WSDiscoveryServer
from ipycam.camera import ReusableThreadingTCPServer

port, hears = int(sys.argv[1]), int(sys.argv[2])
camera = IPCamera(CameraConfig(name="Virtual", local_ip="127.0.0.1", onvif_port=port, username="op", password="secret",
                               main_width=64, main_height=48, main_fps=120))
camera.ptz.presets["1"] = PTZPreset(token="1", name="gate", pan=0.25, tilt=0.5, zoom=0.0)
camera.stream(numpy.zeros((48, 64, 3), dtype=numpy.uint8))
IPCameraHTTPHandler.camera = camera
server = ReusableThreadingTCPServer(("127.0.0.1", port), IPCameraHTTPHandler)
threading.Thread(target=server.serve_forever, daemon=True).start()
WSDiscoveryServer.MULTICAST_PORT = hears
# Nothing of a test is sent to a network.
WSDiscoveryServer._send_announcement = lambda *_: None
WSDiscoveryServer(camera.onvif).start()
print("ready", camera.onvif.device_uuid, flush=True)
for line in sys.stdin:
    status = camera.ptz.get_status()
    print(round(status["pan"], 3), round(status["tilt"], 3), round(status["zoom"], 3), status["moving"], flush=True)
