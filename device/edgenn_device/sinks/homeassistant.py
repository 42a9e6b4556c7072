"""What Home Assistant is told so that it shows this device by itself: one discovery message for all of its entities.

The form is Home Assistant's device discovery, which it takes since 2024.11
(https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload). Describes topics; publishes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .base import About

# Home Assistant's own message when it has started ("online"), and the prefix under which it looks for devices.
BIRTH = "homeassistant/status"
_PREFIX = "homeassistant"
BEGAN, ENDED = "began", "ended"
# Home Assistant takes no state of more than 255 characters.
_LONGEST_STATE = 255
# A message that was sent twice is the one that came last: messages go one at a time, in order. An empty result is no
# event to Home Assistant. `this` is the entity itself, with the attributes of its last event.
_ONCE = (
    "{{ '' if value_json.id == this.attributes.get('id')"
    " and value_json.event_type == this.attributes.get('event_type') else value }}"
)


@dataclass(frozen=True)
class Topics:
    """The topics of one device, below PREFIX/DEVICE."""

    base: str

    @property
    def state(self) -> str:
        return f"{self.base}/state"

    @property
    def label(self) -> str:
        return f"{self.base}/label"

    @property
    def event(self) -> str:
        return f"{self.base}/event"

    @property
    def thumbnail(self) -> str:
        return f"{self.base}/thumbnail"

    @property
    def availability(self) -> str:
        return f"{self.base}/availability"


def discovery(about: About, topics: Topics, identifier: str) -> tuple[str, dict[str, Any]]:
    """The topic and document that make Home Assistant show the device.

    Args:
      about: who we are.
      topics: where we publish.
      identifier: of this device, unlike any other's: letters, digits, underscores and hyphens.
    """

    def entity(key: str, platform: str, name: str, **rest: Any) -> dict[str, Any]:
        return {"platform": platform, "unique_id": f"{identifier}_{key}", "name": name, **rest}

    measured = {"state_topic": topics.state, "state_class": "measurement"}
    # A camera that is gone shows nothing, and a label of an hour ago must not stand there as if it were seen now.
    connected = {"topic": topics.availability}
    sees = {
        "availability": [
            connected,
            {
                "topic": topics.state,
                "value_template": "{{ 'offline' if value_json.health == 'failed' else 'online' }}",
            },
        ],
        "availability_mode": "all",
    }
    components = {
        "label": entity(
            "label",
            "sensor",
            "Label",
            icon="mdi:tag-outline",
            state_topic=topics.label,
            value_template=f"{{{{ value[:{_LONGEST_STATE}] }}}}",
            **sees,
        ),
        "confidence": entity(
            "confidence",
            "sensor",
            "Confidence",
            icon="mdi:percent-outline",
            unit_of_measurement="%",
            suggested_display_precision=0,
            value_template="{{ None if value_json.confidence is none else (value_json.confidence * 100) | round(1) }}",
            **measured,
            **sees,
        ),
        "fps": entity(
            "fps",
            "sensor",
            "Frames per second",
            icon="mdi:speedometer",
            unit_of_measurement="fps",
            suggested_display_precision=1,
            entity_category="diagnostic",
            value_template="{{ value_json.fps }}",
            **measured,
        ),
        "health": entity(
            "health",
            "sensor",
            "Health",
            icon="mdi:heart-pulse",
            device_class="enum",
            options=["starting", "ok", "degraded", "failed"],
            entity_category="diagnostic",
            state_topic=topics.state,
            value_template="{{ value_json.health }}",
            json_attributes_topic=topics.state,
            json_attributes_template="{{ {'reasons': value_json.reasons} | tojson }}",
        ),
        "event": entity(
            "event",
            "event",
            "Event",
            icon="mdi:motion-sensor",
            event_types=[BEGAN, ENDED],
            state_topic=topics.event,
            value_template=_ONCE,
            qos=1,
        ),
        "thumbnail": entity(
            "thumbnail", "image", "Last event", image_topic=topics.thumbnail, content_type="image/jpeg"
        ),
    }
    document = {
        "device": {
            "identifiers": [identifier],
            "name": about.device,
            "manufacturer": "edgenn",
            "model": about.model,
            "sw_version": about.version,
        },
        "origin": {"name": "edgenn", "sw_version": about.version},
        # As a list: what an entity says itself holds against it only if it is of the same name.
        "availability": [connected],
        "components": components,
    }
    return f"{_PREFIX}/device/{identifier}/config", document
