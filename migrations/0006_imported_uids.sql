-- Names that devices had in a system that was replaced.

CREATE TABLE radarflow.imported_uids (
    "tenant_id" text NOT NULL,
    "partition" text NOT NULL,
    "uid" text NOT NULL,
    "identifiers" text[] NOT NULL,
    "epoch" bigint NOT NULL,
    PRIMARY KEY ("tenant_id", "partition", "uid")
);

ALTER TABLE radarflow.imported_uids ENABLE ROW LEVEL SECURITY;
CREATE POLICY reader ON radarflow.imported_uids FOR SELECT USING (tenant_id = radarflow.reader_tenant());
