-- Clear pairs: traps that begin something, and those that end it.
CREATE TABLE radarflow.clear_pairs (
    "tenant_id" text NOT NULL,
    "partition" text NOT NULL,
    "name" text NOT NULL,
    "enabled" boolean NOT NULL,
    "begins" text[] NOT NULL,
    "ends" text[] NOT NULL,
    "about" text[] NOT NULL,
    "severity" text NOT NULL,
    "title" text NOT NULL,
    "description" text NOT NULL,
    "owner" text,
    "created_at" timestamptz NOT NULL,
    "created_by" text NOT NULL,
    "updated_at" timestamptz NOT NULL,
    "updated_by" text NOT NULL,
    "epoch" bigint NOT NULL,
    PRIMARY KEY ("tenant_id", "partition", "name")
);

ALTER TABLE radarflow.clear_pairs ENABLE ROW LEVEL SECURITY;
CREATE POLICY reader ON radarflow.clear_pairs FOR SELECT USING (tenant_id = radarflow.reader_tenant());

CREATE TRIGGER tenant_stays BEFORE UPDATE ON radarflow.clear_pairs FOR EACH ROW EXECUTE FUNCTION radarflow.tenant_stays();
