"""A collector of OTLP over HTTP, which reads what comes with OpenTelemetry's own messages: [device, scope, metric, number, nanoseconds] of
each point. See recorder.py.

Mode partial: it rejects numbers over 100, and says so in an answer that is well.
"""

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)

from recorder import serve


def judge(path, headers, body, mode):
    assert path == "/v1/metrics" and headers["Content-Type"] == "application/x-protobuf", (path, headers)
    request = ExportMetricsServiceRequest()
    request.ParseFromString(body)
    known = type(request)()
    known.CopyFrom(request)
    known.DiscardUnknownFields()
    assert known.SerializeToString() == request.SerializeToString(), "fields that nobody knows"
    taken = []
    for resource in request.resource_metrics:
        (attribute,) = resource.resource.attributes
        assert attribute.key == "device.id"
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                assert metric.WhichOneof("data") == "gauge" and metric.name
                for point in metric.gauge.data_points:
                    number = getattr(point, point.WhichOneof("value"))
                    taken.append(
                        [attribute.value.string_value, scope.scope.name, metric.name, str(number), point.time_unix_nano]
                    )
    answer = ExportMetricsServiceResponse()
    if mode == "partial":
        good = [point for point in taken if float(point[3]) <= 100]
        answer.partial_success.rejected_data_points = len(taken) - len(good)
        answer.partial_success.error_message = "that is too much" if len(good) < len(taken) else ""
        taken = good
    return 200, answer.SerializeToString(), {"Content-Type": "application/x-protobuf"}, taken


serve(judge)
