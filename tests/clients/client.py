"""A client in another language, made by the ordinary generator from the same protos, does what a client does.

usage: client.py ADDRESS, with the generated modules in PYTHONPATH.
"""

import sys
import threading
import time

import grpc
from bluebird.v1 import control_plane_pb2 as api
from bluebird.v1 import control_plane_pb2_grpc as services
from bluebird.v1 import errors_pb2, object_pb2, pod_pb2, secret_pb2, watch_pb2
from bluebird.v1 import workload_service_pb2 as workload_pb2
from bluebird.v1 import workload_service_pb2_grpc as workload_services
from bluebird.v1.meta_pb2 import LabelSelector, ObjectMeta
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

DEADLINE = 20


def pod(name, **labels):
    container = pod_pb2.Container(name="main", command=["sleep", "60"])
    # The node does not exist, so that nobody changes the pod but this program.
    spec = pod_pb2.PodSpec(containers=[container], node_name="nowhere")
    metadata = ObjectMeta(name=name, namespace="default", labels={"suite": "python", **labels})
    return object_pb2.Object(pod=pod_pb2.Pod(metadata=metadata, spec=spec))


def ref(name):
    return object_pb2.ObjectRef(kind="Pod", namespace="default", name=name)


SELECTOR = object_pb2.Selector(kind="Pod", labels=LabelSelector(match_labels={"suite": "python"}))


class Events:
    """Collects the events of a watch in the background, until there are as many as somebody waits for."""

    def __init__(self, plane, request):
        self.events = []
        self.revisions = []
        self.changed = threading.Condition()
        self.call = plane.Watch(request)
        self.thread = threading.Thread(target=self.collect, daemon=True)
        self.thread.start()

    def collect(self):
        try:
            for response in self.call:
                with self.changed:
                    self.events.extend(response.events)
                    self.revisions.append(response.revision)
                    self.changed.notify_all()
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.CANCELLED, error

    def wait_for(self, count):
        with self.changed:
            enough = self.changed.wait_for(lambda: len(self.events) >= count, timeout=DEADLINE)
        assert enough, f"{len(self.events)} of {count} events arrived"
        return self.events

    def stop(self):
        self.call.cancel()
        self.thread.join(DEADLINE)
        assert self.revisions == sorted(self.revisions), self.revisions


def refused(call, request, code):
    """The typed details of a request that must be refused with this code."""
    try:
        call(request, timeout=DEADLINE)
    except grpc.RpcError as error:
        assert error.code() == code, f"{error.code()} instead of {code}: {error.details()}"
        status = rpc_status.from_call(error)
        return list(status.details) if status else []
    raise AssertionError(f"not refused: {request}")


def detail(details, message):
    for any_detail in details:
        if any_detail.Unpack(message):
            return message
    raise AssertionError(f"no {message.DESCRIPTOR.full_name} in {details}")


def lives_and_dies(plane):
    listed = plane.List(api.ListRequest(selector=SELECTOR), timeout=DEADLINE)
    assert not listed.objects, listed
    watch = Events(plane, watch_pb2.WatchRequest(selectors=[SELECTOR], from_revision=listed.revision))

    created = plane.Create(api.CreateRequest(object=pod("python")), timeout=DEADLINE).object
    metadata = created.pod.metadata
    assert metadata.uid and metadata.resource_version > listed.revision and metadata.generation == 1, metadata
    got = plane.Get(api.GetRequest(ref=ref("python")), timeout=DEADLINE).object
    assert got.pod.metadata.uid == metadata.uid, got

    old_version = got.pod.metadata.resource_version
    got.pod.metadata.labels["colour"] = "blue"
    updated = plane.Update(api.UpdateRequest(object=got), timeout=DEADLINE).object
    assert updated.pod.metadata.resource_version > old_version, updated

    names = [found.pod.metadata.name for found in plane.List(api.ListRequest(selector=SELECTOR), timeout=DEADLINE).objects]
    assert names == ["python"], names
    plane.Delete(api.DeleteRequest(ref=ref("python"), grace_period_seconds=0), timeout=DEADLINE)

    events = watch.wait_for(3)
    watch.stop()
    types = [watch_pb2.Event.Type.Name(event.type) for event in events]
    assert types == ["TYPE_ADDED", "TYPE_MODIFIED", "TYPE_DELETED"], types
    versions = [event.object.pod.metadata.resource_version for event in events]
    assert versions == sorted(set(versions)), versions
    assert versions[1] == updated.pod.metadata.resource_version, versions


def errors_are_typed(plane):
    plane.Create(api.CreateRequest(object=pod("typed")), timeout=DEADLINE)
    details = refused(plane.Create, api.CreateRequest(object=pod("typed")), grpc.StatusCode.ALREADY_EXISTS)
    assert detail(details, errors_pb2.ObjectDetail()).ref.name == "typed"

    stale = plane.Get(api.GetRequest(ref=ref("typed")), timeout=DEADLINE).object
    stale.pod.metadata.labels["colour"] = "red"
    plane.Update(api.UpdateRequest(object=stale), timeout=DEADLINE)
    stale.pod.metadata.labels["colour"] = "green"
    details = refused(plane.Update, api.UpdateRequest(object=stale), grpc.StatusCode.ABORTED)
    conflict = detail(details, errors_pb2.Conflict())
    assert conflict.expected == stale.pod.metadata.resource_version < conflict.actual, conflict

    wrong = pod("Not_A_Name")
    wrong.pod.spec.containers[0].name = ""
    details = refused(plane.Create, api.CreateRequest(object=wrong), grpc.StatusCode.INVALID_ARGUMENT)
    fields = [violation.field for violation in detail(details, error_details_pb2.BadRequest()).field_violations]
    assert any("metadata.name" in field for field in fields), fields
    assert any("containers[0].name" in field for field in fields), fields

    details = refused(plane.Get, api.GetRequest(ref=ref("gone")), grpc.StatusCode.NOT_FOUND)
    assert detail(details, errors_pb2.ObjectDetail()).ref.name == "gone"

    future = Future(plane, watch_pb2.WatchRequest(selectors=[SELECTOR], from_revision=1 << 60))
    details = refused(future, None, grpc.StatusCode.OUT_OF_RANGE)
    assert detail(details, errors_pb2.FutureRevision()).requested == 1 << 60
    plane.Delete(api.DeleteRequest(ref=ref("typed"), grace_period_seconds=0), timeout=DEADLINE)


def a_secret_keeps_its_texts_as_bytes(plane):
    secret = secret_pb2.Secret(metadata=ObjectMeta(name="python"), string_data={"password": "hunter2"})
    created = plane.Create(api.CreateRequest(object=object_pb2.Object(secret=secret)), timeout=DEADLINE).object.secret
    assert created.data["password"] == b"hunter2" and not created.string_data and created.type == "Opaque", created.data.keys()
    named = object_pb2.ObjectRef(kind="Secret", namespace="default", name="python")
    assert plane.Get(api.GetRequest(ref=named), timeout=DEADLINE).object.secret == created
    plane.Delete(api.DeleteRequest(ref=named), timeout=DEADLINE)


def runs_a_command_in_a_container(plane, workloads):
    made = pod("command")
    made.pod.spec.node_name = "python"
    plane.Create(api.CreateRequest(object=made), timeout=DEADLINE)
    selector = object_pb2.Selector(kind="Pod", namespace="default", name="command")
    watch = plane.Watch(watch_pb2.WatchRequest(selectors=[selector], send_initial=True), timeout=DEADLINE)
    phases = (event.object.pod.status.phase for response in watch for event in response.events)
    assert any(phase == pod_pb2.POD_PHASE_RUNNING for phase in phases)
    watch.cancel()

    def requests():
        start = workload_pb2.ExecStart(pod="command", command=["sh", "-c", "cat; echo $BLUEBIRD_CONTAINER; exit 3"], stdin=True)
        yield workload_pb2.ExecRequest(start=start)
        yield workload_pb2.ExecRequest(stdin=b"\x00\xff in ")

    out, end = b"", None
    for response in workloads.Exec(requests(), timeout=DEADLINE):
        out += response.stdout
        end = response.end if response.HasField("end") else end
    assert out == b"\x00\xff in main\n" and end.exit_code == 3, (out, end)
    plane.Delete(api.DeleteRequest(ref=ref("command"), grace_period_seconds=1), timeout=DEADLINE)
    wait_until_gone(plane, "command")


def wait_until_gone(plane, name):
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        try:
            plane.Get(api.GetRequest(ref=ref(name)), timeout=DEADLINE)
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.NOT_FOUND, error
            return
        time.sleep(0.05)
    raise AssertionError(f"{name} is still there")


class Future:
    """A watch that must be refused, called like a unary method."""

    def __init__(self, plane, request):
        self.plane, self.request = plane, request

    def __call__(self, _, timeout):
        for _ in self.plane.Watch(self.request, timeout=timeout):
            raise AssertionError("the watch began")


def is_described_by_reflection(channel):
    database = ProtoReflectionDescriptorDatabase(channel)
    names = set(database.get_services())
    expected = {"bluebird.v1.ControlPlaneService", "bluebird.v1.NodeService", "bluebird.v1.WorkloadService"}
    assert expected <= names, names
    service = DescriptorPool(database).FindServiceByName("bluebird.v1.ControlPlaneService")
    assert {"Create", "Apply", "Watch"} <= {method.name for method in service.methods}, service.methods


def main():
    with grpc.insecure_channel(sys.argv[1]) as channel:
        grpc.channel_ready_future(channel).result(timeout=DEADLINE)
        plane = services.ControlPlaneServiceStub(channel)
        for check in [lives_and_dies, errors_are_typed, a_secret_keeps_its_texts_as_bytes]:
            check(plane)
            print(f"python: {check.__name__}: ok")
        runs_a_command_in_a_container(plane, workload_services.WorkloadServiceStub(channel))
        print("python: runs_a_command_in_a_container: ok")
        is_described_by_reflection(channel)
        print("python: is_described_by_reflection: ok")


main()
