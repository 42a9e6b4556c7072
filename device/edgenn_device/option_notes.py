"""What each option of a run is for, in the words that stand beside it in the run.toml of a device.

For a person who reads that file over SSH, with no documentation at hand. It reads and checks nothing: `options` does.
"""

from __future__ import annotations

# By field of `Options`, in the order in which a person thinks of them: the remark, and how a value is written.
NOTES: dict[str, tuple[str, str]] = {
    "model": ("The .tflite; systemctl reload edgenn takes it anew between two frames.", '"model.tflite"'),
    "source": (
        'picamera, "/dev/video0", "rtsp://…", "http://…" (MJPEG), a video, a folder of pictures, synthetic.',
        '"picamera"',
    ),
    "sink": (
        "Where results and events go: sqlite:PATH, jsonl:PATH, csv:PATH, mqtt://HOST, https://… (webhook), "
        "prometheus:PORT, video:FOLDER. Passwords do not belong here: EDGENN_MQTT_PASSWORD_FILE, in the unit.",
        '["sqlite:events.db"]',
    ),
    "web": ("The live page; where others can reach it, it asks for a token.", '"127.0.0.1:8080"'),
    "web_token_file": (
        "Holds the page's token; without it /var/lib/edgenn/web-token, made at the first start.",
        '"/etc/edgenn/web-token"',
    ),
    "keep_uncertain": ("Folder for frames that the model is unsure of, 500 MB at most: edgenn collect.", '"unsure"'),
    "name": ("What this device is called in topics and metrics; without it its host name.", '"porch"'),
    "rotate": ("Degrees clockwise: 0, 90, 180, 270.", "180"),
    "flip": ("none, horizontal, vertical, both.", '"horizontal"'),
    "roi": (
        "What is looked at: x, y, width, height in fractions of the picture after rotate and flip.",
        "[0.25, 0.0, 0.5, 1.0]",
    ),
    "size": ("Pixels to ask a USB camera or picamera for.", '"1280x720"'),
    "exposure": ("Seconds; without it the camera decides.", '"1/100"'),
    "motion_gate": ("Whether a still scene spares the network; so for cameras unless it is false here.", "false"),
    "delegate": ("An Edge TPU (usb, pci, :0), the path of another delegate's library, or cpu.", '"usb"'),
    "threads": ("CPU threads of the interpreter; without it the cores, four at most.", "4"),
    "runtime": ("auto, litert, tflite-runtime, tensorflow.", '"auto"'),
    "labels": ("A file with one label a line, for a model that carries none.", '"labels.txt"'),
    "top": ("Labels of a result.", "3"),
    "fast": ("A video as fast as possible, every frame; not for cameras.", "true"),
    "limit": ("The run ends after so many frames, and systemd starts it again.", "1000"),
}
