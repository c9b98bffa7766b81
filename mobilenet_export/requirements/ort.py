"""What an ORT format file needs: the version of the format, and its operators."""

from mobilenet_export.compat.facts import ReadRequirements, Requirements
from mobilenet_export.formats._ort_flatbuffer import read


def read_requirements(data: bytes) -> Requirements:
    """Read what an ORT format file needs.

    Raises:
        ValueError: It is not an ORT format model.
    """
    session = read(data)
    nodes = session.get("model", {}).get("graph", {}).get("nodes", [])
    if not nodes or not str(session.get("ort_version")).isdecimal():
        raise ValueError("not an ORT format model: it has no nodes or no version")
    try:
        operators = {f"{n.get('domain', '')}.{n['op_type']}".strip("."): n["since_version"] for n in nodes}
    except KeyError as error:
        raise ValueError(f"not an ORT format model: a node has no {error}") from None
    return Requirements({"ORT format": int(session["ort_version"])}, operators)


REQUIREMENT: ReadRequirements = read_requirements
