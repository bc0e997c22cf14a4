import type { TableNames } from './dialect.ts'
import { outboxSign } from './outbox-sign.ts'
import { postgresNames } from './postgres-signs.ts'
import { rowKind } from './schema.ts'

// The default of `maxContentBytes`. Where a site has set less, more is dropped and counted.
const maxContentBytes = 1_048_576

/**
 * Statements that make the functions by which a trigger, or anybody with `psql`, sends: `send` and
 * `group_send`, named like the tables. They write into the outbox, so what they send is part of the
 * transaction that calls them.
 *
 * The time of sending is set at the commit, by a deferred trigger: a transaction may be open for
 * longer than a message lives.
 */
export function postgresFunctions({ meta, outbox }: TableNames): readonly string[] {
  const [schema = '', table = ''] = meta.split('.')
  const prefix = table.slice(0, -'meta'.length)
  const { signName } = postgresNames(schema.slice(1, -1), prefix)
  const name = (of: string): string => `${schema}.${prefix}${of}`
  const now = '(extract(epoch FROM clock_timestamp()) * 1000)::bigint'
  const write = (kind: number, target: string): string => `
    IF content IS NULL OR jsonb_typeof(content) <> 'object' THEN
      RAISE EXCEPTION 'content is no JSON object' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF octet_length(content::text) >= ${maxContentBytes} THEN
      RAISE EXCEPTION 'content is % bytes, more than ${maxContentBytes}', octet_length(content::text)
        USING ERRCODE = 'program_limit_exceeded';
    END IF;
    INSERT INTO ${outbox} (kind, target, content) VALUES (${kind}, ${target}, '1' || content::text);
    PERFORM pg_notify('${signName}', E'sql\\n${outboxSign}');`
  return [
    `CREATE OR REPLACE FUNCTION ${name('send')}(channel text, content jsonb) RETURNS void
      LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
      BEGIN
        IF channel IS NULL OR length(channel) > 200
          OR channel !~ '^[A-Za-z0-9._-]+(![A-Za-z0-9._-]+){0,1}$' THEN
          RAISE EXCEPTION 'channel name % is wrong; use 1-200 of A-Z a-z 0-9 . _ -',
            coalesce(quote_literal(channel), 'null') USING ERRCODE = 'invalid_parameter_value';
        END IF;
        ${write(rowKind.work, 'channel')}
      END $$`,
    `CREATE OR REPLACE FUNCTION ${name('group_send')}(group_name text, content jsonb) RETURNS void
      LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
      BEGIN
        IF group_name IS NULL OR length(group_name) NOT BETWEEN 1 AND 200 THEN
          RAISE EXCEPTION 'group name % is wrong; use 1-200 characters',
            coalesce(quote_literal(group_name), 'null') USING ERRCODE = 'invalid_parameter_value';
        END IF;
        ${write(rowKind.group, `substr(to_json(group_name)::text, 2, length(to_json(group_name)::text) - 2)`)}
      END $$`,
    `CREATE OR REPLACE FUNCTION ${name('outbox_stamp')}() RETURNS trigger
      LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
      BEGIN
        UPDATE ${outbox} SET sent_at = ${now} WHERE id = NEW.id;
        RETURN NULL;
      END $$`,
    `DO $$ BEGIN
      IF NOT EXISTS (SELECT FROM pg_trigger
        WHERE tgrelid = '${outbox}'::regclass AND tgname = lower('${prefix}outbox_stamp'))
      THEN
        CREATE CONSTRAINT TRIGGER ${prefix}outbox_stamp AFTER INSERT ON ${outbox}
          DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.sent_at IS NULL)
          EXECUTE FUNCTION ${name('outbox_stamp')}();
      END IF;
    END $$`,
  ]
}
