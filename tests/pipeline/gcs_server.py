"""Google Cloud Storage on loopback: the emulator, with the conditional requests of the XML API, which it lacks.

    python gcs_server.py PORT BUCKET

`x-goog-if-generation-match` as documented: 0 where there must be no object, else the generation that must be there; 412 if not.
"""

import sys
from http import HTTPStatus
from typing import Any

from gcp_storage_emulator import server
from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers import objects


def generation(request: Any, storage: Any) -> str:
    try:
        return str(storage.get_file_obj(request.params["bucket_name"], request.params["object_id"])["generation"])
    except NotFound:
        return "0"


def get(request: Any, response: Any, storage: Any) -> None:
    objects.download(request, response, storage)
    if response.status == HTTPStatus.OK:
        named(request, response, storage)
        response["Last-Modified"] = "Mon, 23 Nov 2026 00:00:00 GMT"


def put(request: Any, response: Any, storage: Any) -> None:
    meant = request.get_header("x-goog-if-generation-match")
    if meant is not None and meant != generation(request, storage):
        response.status = HTTPStatus.PRECONDITION_FAILED
        return
    objects.xml_upload(request, response, storage)
    if response.status == HTTPStatus.OK:
        named(request, response, storage)


def named(request: Any, response: Any, storage: Any) -> None:
    response["x-goog-generation"] = generation(request, storage)
    response["ETag"] = f'"{generation(request, storage)}"'


if __name__ == "__main__":
    xml_api = (r"^/(?P<bucket_name>[-.\w]+)/(?P<object_id>.*[^/]+)$", {"GET": get, "PUT": put})
    server.HANDLERS = (*server.HANDLERS[:-1], xml_api)
    server.create_server("127.0.0.1", int(sys.argv[1]), in_memory=True, default_bucket=sys.argv[2]).run()
