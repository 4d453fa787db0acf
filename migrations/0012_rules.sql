-- Rules: queries whose answers are alerts.
CREATE TABLE radarflow.rules (
    "tenant_id" text NOT NULL,
    "partition" text NOT NULL,
    "name" text NOT NULL,
    "enabled" boolean NOT NULL,
    "query" text NOT NULL,
    "for_s" bigint NOT NULL,
    "resolve_for_s" bigint NOT NULL,
    "severity" text NOT NULL,
    "title" text NOT NULL,
    "description" text NOT NULL,
    "runbook_url" text,
    "labels" text[] NOT NULL,
    "owner" text,
    "created_at" timestamptz NOT NULL,
    "created_by" text NOT NULL,
    "updated_at" timestamptz NOT NULL,
    "updated_by" text NOT NULL,
    "epoch" bigint NOT NULL,
    PRIMARY KEY ("tenant_id", "partition", "name")
);

ALTER TABLE radarflow.rules ENABLE ROW LEVEL SECURITY;
CREATE POLICY reader ON radarflow.rules FOR SELECT USING (tenant_id = radarflow.reader_tenant());

CREATE TRIGGER tenant_stays BEFORE UPDATE ON radarflow.rules FOR EACH ROW EXECUTE FUNCTION radarflow.tenant_stays();

-- Which devices stand behind which.
CREATE TABLE radarflow.dependencies (
    "tenant_id" text NOT NULL,
    "partition" text NOT NULL,
    "name" text NOT NULL,
    "description" text NOT NULL,
    "site" text,
    "parent" text NOT NULL,
    "children" text NOT NULL,
    "owner" text,
    "created_at" timestamptz NOT NULL,
    "created_by" text NOT NULL,
    "updated_at" timestamptz NOT NULL,
    "updated_by" text NOT NULL,
    "epoch" bigint NOT NULL,
    PRIMARY KEY ("tenant_id", "partition", "name")
);

ALTER TABLE radarflow.dependencies ENABLE ROW LEVEL SECURITY;
CREATE POLICY reader ON radarflow.dependencies FOR SELECT USING (tenant_id = radarflow.reader_tenant());

CREATE TRIGGER tenant_stays BEFORE UPDATE ON radarflow.dependencies FOR EACH ROW EXECUTE FUNCTION radarflow.tenant_stays();
