"""What tests of the fake Synapse share: calls without a socket, and a bucket in a dict."""

from stsfs.demo.fake_synapse.answers import MODEL
from stsfs.demo.fake_synapse.server import FakeSynapse
from stsfs.demo.fake_synapse.sts import LocalVendor

MD5 = "0123456789abcdef0123456789abcdef"
FOLDER, FILE = f"{MODEL}Folder", f"{MODEL}FileEntity"
EXTERNAL = f"{MODEL}project.ExternalS3StorageLocationSetting"
MANAGED = f"{MODEL}project.S3StorageLocationSetting"


class Bucket:
    """Synapse's own view of S3, from a dict."""

    def __init__(self, objects):
        self.objects = objects

    def presigned_get(self, bucket, key, file_name):
        return f"https://{bucket}/{key}?X-Amz-Date=20200101T000000Z&X-Amz-Expires=900"

    def bucket_exists(self, bucket):
        return any(name == bucket for name, _ in self.objects)

    def read(self, bucket, key):
        return self.objects.get((bucket, key))

    def size_bytes(self, bucket, key):
        data = self.objects.get((bucket, key))
        return None if data is None else len(data)


class Api:
    """Calls as one user; every answer is (status, JSON or None)."""

    def __init__(self, fake, token):
        self.http, self.token = fake.app.test_client(), token

    def call(self, method, path, body=None):
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        response = self.http.open(path, method=method, json=body, headers=headers)
        return response.status_code, response.get_json(silent=True)

    def refusal(self, method, path, body=None):
        status, answer = self.call(method, path, body)
        assert status >= 400, answer
        return status, answer["reason"]

    def get(self, path):
        return self.done("GET", path)

    def post(self, path, body):
        return self.done("POST", path, body)

    def put(self, path, body):
        return self.done("PUT", path, body)

    def done(self, method, path, body=None):
        status, answer = self.call(method, path, body)
        assert status < 400, answer
        return answer

    def folder(self, name, parent):
        made = self.post("/repo/v1/entity", {"concreteType": FOLDER, "name": name} | at(parent))
        return made["id"]

    def handle(self, location, key="a/k", **changes):
        body = {
            "concreteType": f"{MODEL}file.S3FileHandle",
            "storageLocationId": location,
            "bucketName": "lab",
            "key": key,
            "contentMd5": MD5,
            "fileName": "k",
        }
        return self.post("/file/v1/externalFileHandle/s3", body | changes)

    def file(self, name, parent, handle):
        body = {"concreteType": FILE, "name": name, "dataFileHandleId": handle} | at(parent)
        return self.post("/repo/v1/entity", body)

    def location(self, **body):
        made = self.post("/repo/v1/storageLocation", {"concreteType": EXTERNAL} | body)
        return made["storageLocationId"]

    def use(self, entity, *locations):
        return self.post("/repo/v1/projectSettings", setting(entity, *locations))


def at(parent):
    return {"parentId": parent}


def setting(entity, *locations):
    return {
        "concreteType": f"{MODEL}project.UploadDestinationListSetting",
        "projectId": entity,
        "settingsType": "upload",
        "locations": list(locations),
    }


def new_file(name, parent, handle):
    return {"concreteType": FILE, "name": name, "dataFileHandleId": handle} | at(parent)


def new_folder(name, parent):
    return {"concreteType": FOLDER, "name": name} | at(parent)


def fake_with_bucket():
    """A fake whose bucket `lab` lets bob and ada use `a/` and `b/`, and eve `c/`."""
    objects = {("lab", f"{key}/owner.txt"): b"bob, ada\n" for key in ("a", "b")}
    objects |= {("lab", "a/k"): b"12345", ("lab", "b/k"): b"", ("lab", "c/owner.txt"): b"eve"}
    return FakeSynapse(storage=Bucket(objects), vendor=LocalVendor(20))
