ALTER TABLE radarflow.sources
    ADD COLUMN "state" text,
    ADD COLUMN "patience_s" bigint;
