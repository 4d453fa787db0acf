ALTER TABLE radarflow.escalation_policies
    ADD COLUMN "receivers" text[] NOT NULL DEFAULT '{}';
ALTER TABLE radarflow.escalation_policies
    ALTER COLUMN "receivers" DROP DEFAULT;

CREATE TABLE radarflow.rotas (
    "tenant_id" text NOT NULL,
    "partition" text NOT NULL,
    "name" text NOT NULL,
    "people" text[] NOT NULL,
    "starts_at" timestamptz NOT NULL,
    "shift" text NOT NULL,
    "time_zone" text NOT NULL,
    "time_intervals" text[] NOT NULL,
    "owner" text,
    "created_at" timestamptz NOT NULL,
    "created_by" text NOT NULL,
    "updated_at" timestamptz NOT NULL,
    "updated_by" text NOT NULL,
    "epoch" bigint NOT NULL,
    PRIMARY KEY ("tenant_id", "partition", "name")
);

ALTER TABLE radarflow.rotas ENABLE ROW LEVEL SECURITY;
CREATE POLICY reader ON radarflow.rotas FOR SELECT USING (tenant_id = radarflow.reader_tenant());

CREATE TABLE radarflow.rota_overrides (
    "tenant_id" text NOT NULL,
    "partition" text NOT NULL,
    "name" text NOT NULL,
    "rota" text NOT NULL,
    "person" text NOT NULL,
    "starts_at" timestamptz NOT NULL,
    "ends_at" timestamptz NOT NULL,
    "comment" text NOT NULL,
    "owner" text,
    "created_at" timestamptz NOT NULL,
    "created_by" text NOT NULL,
    "updated_at" timestamptz NOT NULL,
    "updated_by" text NOT NULL,
    "epoch" bigint NOT NULL,
    PRIMARY KEY ("tenant_id", "partition", "name")
);

ALTER TABLE radarflow.rota_overrides ENABLE ROW LEVEL SECURITY;
CREATE POLICY reader ON radarflow.rota_overrides FOR SELECT USING (tenant_id = radarflow.reader_tenant());

CREATE TABLE radarflow.oncall (
    "tenant_id" text NOT NULL,
    "partition" text NOT NULL,
    "rota" text NOT NULL,
    "person" text,
    "receiver" text,
    "since" timestamptz,
    "until" timestamptz,
    "rota_override" text,
    "next_person" text,
    "next_at" timestamptz,
    "epoch" bigint NOT NULL,
    PRIMARY KEY ("tenant_id", "partition", "rota")
);

ALTER TABLE radarflow.oncall ENABLE ROW LEVEL SECURITY;
CREATE POLICY reader ON radarflow.oncall FOR SELECT USING (tenant_id = radarflow.reader_tenant());

CREATE TABLE radarflow.integrations (
    "tenant_id" text NOT NULL,
    "partition" text NOT NULL,
    "name" text NOT NULL,
    "inventory" text NOT NULL,
    "endpoint" text NOT NULL,
    "enabled" boolean NOT NULL,
    "into_partition" text NOT NULL,
    "interval_s" bigint NOT NULL,
    "full_interval_s" bigint NOT NULL,
    "page_size" bigint NOT NULL,
    "queries" text[] NOT NULL,
    "vrfs" text[] NOT NULL,
    "interfaces" boolean NOT NULL,
    "leave_out" text[] NOT NULL,
    "owner" text,
    "created_at" timestamptz NOT NULL,
    "created_by" text NOT NULL,
    "updated_at" timestamptz NOT NULL,
    "updated_by" text NOT NULL,
    "epoch" bigint NOT NULL,
    PRIMARY KEY ("tenant_id", "partition", "name")
);

ALTER TABLE radarflow.integrations ENABLE ROW LEVEL SECURITY;
CREATE POLICY reader ON radarflow.integrations FOR SELECT USING (tenant_id = radarflow.reader_tenant());

CREATE TRIGGER tenant_stays BEFORE UPDATE ON radarflow.integrations FOR EACH ROW EXECUTE FUNCTION radarflow.tenant_stays();
CREATE TABLE radarflow.parsing_rules (
    "tenant_id" text NOT NULL,
    "partition" text NOT NULL,
    "name" text NOT NULL,
    "enabled" boolean NOT NULL,
    "position" bigint NOT NULL,
    "programs" text[] NOT NULL,
    "senders" text[] NOT NULL,
    "pattern" text NOT NULL,
    "severity" text,
    "body" text,
    "owner" text,
    "created_at" timestamptz NOT NULL,
    "created_by" text NOT NULL,
    "updated_at" timestamptz NOT NULL,
    "updated_by" text NOT NULL,
    "epoch" bigint NOT NULL,
    PRIMARY KEY ("tenant_id", "partition", "name")
);

ALTER TABLE radarflow.parsing_rules ENABLE ROW LEVEL SECURITY;
CREATE POLICY reader ON radarflow.parsing_rules FOR SELECT USING (tenant_id = radarflow.reader_tenant());

CREATE TRIGGER tenant_stays BEFORE UPDATE ON radarflow.parsing_rules FOR EACH ROW EXECUTE FUNCTION radarflow.tenant_stays();
CREATE TRIGGER tenant_stays BEFORE UPDATE ON radarflow.rotas FOR EACH ROW EXECUTE FUNCTION radarflow.tenant_stays();
CREATE TRIGGER tenant_stays BEFORE UPDATE ON radarflow.rota_overrides FOR EACH ROW EXECUTE FUNCTION radarflow.tenant_stays();
