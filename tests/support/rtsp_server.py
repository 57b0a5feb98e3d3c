"""A real RTSP server (GStreamer) that streams one colour; runs in the system's Python, which has `gi`.

Serves /h264 and /mjpeg on 127.0.0.1, prints its port, and runs until it is killed.
"""

from __future__ import annotations

import sys

import gi  # type: ignore[import-not-found]

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # type: ignore[import-not-found]  # noqa: E402

SOURCE = (
    "videotestsrc is-live=true pattern=solid-color foreground-color=0x{colour} "
    "! video/x-raw,format=RGB,width=320,height=240,framerate=30/1 "
    "! videoconvert ! video/x-raw,format=I420,colorimetry={colorimetry} ! "
)
# The colorimetry that goes with each: BT.601 limited for video, full for JPEG.
STREAMS = {
    ("/h264", "bt601"): "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=15 "
    "! rtph264pay name=pay0 pt=96 config-interval=1",
    ("/mjpeg", "1:4:0:0"): "jpegenc ! rtpjpegpay name=pay0 pt=26",
}


def serve(colour: str, port: str) -> None:
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    for (path, colorimetry), encoder in STREAMS.items():
        factory = GstRtspServer.RTSPMediaFactory()
        factory.set_launch(f"( {SOURCE.format(colour=colour, colorimetry=colorimetry)}{encoder} )")
        factory.set_shared(True)
        server.get_mount_points().add_factory(path, factory)
    server.attach(None)
    print(server.get_bound_port(), flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    serve(*sys.argv[1:])
