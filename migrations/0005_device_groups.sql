-- Groups of devices that operators named.

CREATE TABLE radarflow.device_groups (
    "tenant_id" text NOT NULL,
    "partition" text NOT NULL,
    "name" text NOT NULL,
    "condition" text,
    "members" text[] NOT NULL,
    "description" text NOT NULL,
    "actor" text NOT NULL,
    "reason" text NOT NULL,
    "epoch" bigint NOT NULL,
    PRIMARY KEY ("tenant_id", "partition", "name")
);

ALTER TABLE radarflow.device_groups ENABLE ROW LEVEL SECURITY;
CREATE POLICY reader ON radarflow.device_groups FOR SELECT USING (tenant_id = radarflow.reader_tenant());
