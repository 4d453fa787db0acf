-- Traces of the last hour.

CREATE TABLE radarflow.otel_trace_summaries (
    "tenant_id" text NOT NULL,
    "partition" text NOT NULL,
    "trace_id" text NOT NULL,
    "start_time" timestamptz NOT NULL,
    "end_time" timestamptz NOT NULL,
    "start_time_unix_nano" bigint NOT NULL,
    "end_time_unix_nano" bigint NOT NULL,
    "duration_ms" double precision NOT NULL,
    "root_span_id" text,
    "root_span_name" text,
    "root_service_name" text,
    "root_span_kind" bigint,
    "status_code" bigint,
    "status_message" text,
    "service_set" text[] NOT NULL,
    "span_count" bigint NOT NULL,
    "error_count" bigint NOT NULL,
    "is_closed" boolean NOT NULL,
    "epoch" bigint NOT NULL,
    PRIMARY KEY ("tenant_id", "partition", "trace_id")
);

ALTER TABLE radarflow.otel_trace_summaries ENABLE ROW LEVEL SECURITY;
CREATE POLICY reader ON radarflow.otel_trace_summaries FOR SELECT USING (tenant_id = radarflow.reader_tenant());
