/** Writes src/generated/types.ts from schemas/*.avsc; with --check only tells whether it is up to date. */
import { readFileSync, writeFileSync } from 'node:fs';
import { type AvroSchema, schemaFile, schemaNames } from './schemas.ts';

const TARGET = new URL('./generated/types.ts', import.meta.url);
const PRIMITIVE: Record<string, string> = {
  null: 'null',
  boolean: 'boolean',
  int: 'number',
  long: 'number',
  float: 'number',
  double: 'number',
  bytes: 'Buffer',
  string: 'string',
};

/** TypeScript source with one interface per Avro record and one union per enum. */
export function generateTypes(): string {
  const blocks: string[] = ['// Generated from schemas/*.avsc by `npm run generate`. Do not edit.'];
  const typeOf = (schema: AvroSchema): string => {
    if (typeof schema === 'string') return PRIMITIVE[schema] ?? schema;
    if (Array.isArray(schema))
      return [...schema.filter((s) => s !== 'null'), ...schema.filter((s) => s === 'null')]
        .map(typeOf)
        .join(' | ');
    switch (schema.type) {
      case 'array': {
        const items = typeOf(schema.items!);
        return items.includes('|') ? `(${items})[]` : `${items}[]`;
      }
      case 'map':
        return `Record<string, ${typeOf(schema.values!)}>`;
      case 'enum':
        blocks.push(
          `${comment(schema.doc, '')}export type ${schema.name} = ${schema.symbols!.map((s) => `'${s}'`).join(' | ')};`,
        );
        return schema.name!;
      case 'record': {
        const fields = schema.fields!.map((f) => `${comment(f.doc, '  ')}  ${f.name}: ${typeOf(f.type)};`);
        blocks.push(`${comment(schema.doc, '')}export interface ${schema.name} {\n${fields.join('\n')}\n}`);
        return schema.name!;
      }
      default:
        return typeOf(schema.type);
    }
  };
  for (const name of schemaNames()) typeOf(schemaFile(name));
  return `${blocks.join('\n\n')}\n`;
}

const comment = (doc: string | undefined, indent: string): string => (doc ? `${indent}/** ${doc} */\n` : '');

if (process.argv[1] === new URL(import.meta.url).pathname) {
  const wanted = generateTypes();
  if (!process.argv.includes('--check')) writeFileSync(TARGET, wanted);
  else if (readFileSync(TARGET, 'utf8') !== wanted) {
    console.error(
      'packages/contracts/src/generated/types.ts is not what schemas/*.avsc say: run `npm run generate` and commit the result.',
    );
    process.exitCode = 1;
  }
}
