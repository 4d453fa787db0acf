-- What operators say of identifiers, and each time a record moved from one device to another.

CREATE TABLE radarflow.device_links (
    "tenant_id" text NOT NULL,
    "partition" text NOT NULL,
    "link_id" text NOT NULL,
    "kind" text NOT NULL,
    "a" text NOT NULL,
    "b" text NOT NULL,
    "actor" text NOT NULL,
    "reason" text NOT NULL,
    "epoch" bigint NOT NULL,
    PRIMARY KEY ("tenant_id", "partition", "link_id")
);

CREATE TABLE radarflow.merge_audit (
    "tenant_id" text NOT NULL,
    "partition" text NOT NULL,
    "row_id" numeric(38,0) NOT NULL,
    "epoch" bigint NOT NULL,
    "time" timestamptz NOT NULL,
    "record" text NOT NULL,
    "from_uid" text NOT NULL,
    "to_uid" text NOT NULL,
    "reason" text NOT NULL,
    "witnesses" text[] NOT NULL,
    "device_uid" text,
    PRIMARY KEY ("tenant_id", "row_id")
);

ALTER TABLE radarflow.device_links ENABLE ROW LEVEL SECURITY;
CREATE POLICY reader ON radarflow.device_links FOR SELECT USING (tenant_id = radarflow.reader_tenant());
ALTER TABLE radarflow.merge_audit ENABLE ROW LEVEL SECURITY;
CREATE POLICY reader ON radarflow.merge_audit FOR SELECT USING (tenant_id = radarflow.reader_tenant());

CREATE INDEX merge_audit_to ON radarflow.merge_audit (tenant_id, to_uid);
CREATE INDEX merge_audit_from ON radarflow.merge_audit (tenant_id, from_uid);
