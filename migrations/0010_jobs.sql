-- What agents look at, and what each has to do.
CREATE TABLE radarflow.profiles (
    "tenant_id" text NOT NULL,
    "partition" text NOT NULL,
    "name" text NOT NULL,
    "description" text NOT NULL,
    "kind" text NOT NULL,
    "enabled" boolean NOT NULL,
    "priority" bigint NOT NULL,
    "site" text,
    "condition" text,
    "device_group" text,
    "hosts" text[] NOT NULL,
    "exclude" text[] NOT NULL,
    "interval_s" bigint NOT NULL,
    "assignment" text NOT NULL,
    "agents" text[] NOT NULL,
    "timeout_ms" bigint NOT NULL,
    "attempts" bigint NOT NULL,
    "ports" text[] NOT NULL,
    "tls" boolean NOT NULL,
    "url_path" text NOT NULL,
    "expected_status" text NOT NULL,
    "body_pattern" text,
    "redirects" bigint NOT NULL,
    "query_name" text,
    "record_type" text NOT NULL,
    "owner" text,
    "created_at" timestamptz NOT NULL,
    "created_by" text NOT NULL,
    "updated_at" timestamptz NOT NULL,
    "updated_by" text NOT NULL,
    "epoch" bigint NOT NULL,
    PRIMARY KEY ("tenant_id", "partition", "name")
);

ALTER TABLE radarflow.profiles ENABLE ROW LEVEL SECURITY;
CREATE POLICY reader ON radarflow.profiles FOR SELECT USING (tenant_id = radarflow.reader_tenant());

CREATE TABLE radarflow.jobs (
    "tenant_id" text NOT NULL,
    "partition" text NOT NULL,
    "profile" text NOT NULL,
    "agent_id" text NOT NULL,
    "state" text NOT NULL,
    "reason" text,
    "since" timestamptz NOT NULL,
    "targets" bigint NOT NULL,
    "interval_s" bigint NOT NULL,
    "last_result_at" timestamptz,
    "results" bigint NOT NULL,
    "negative" bigint NOT NULL,
    "unknown" bigint NOT NULL,
    "epoch" bigint NOT NULL,
    PRIMARY KEY ("tenant_id", "partition", "profile", "agent_id")
);

ALTER TABLE radarflow.jobs ENABLE ROW LEVEL SECURITY;
CREATE POLICY reader ON radarflow.jobs FOR SELECT USING (tenant_id = radarflow.reader_tenant());

CREATE TRIGGER tenant_stays BEFORE UPDATE ON radarflow.profiles FOR EACH ROW EXECUTE FUNCTION radarflow.tenant_stays();
