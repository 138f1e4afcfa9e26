// usage: node postman.mjs CONVERTER DESCRIPTION >COLLECTION
//
// Makes a Postman collection of /openapi.json, the same whenever it is made: the converter fills what has no example by
// chance, and gives everything a new id.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { resolve } from 'node:path';

const [converter, description] = process.argv.slice(2);
const { convert } = createRequire(resolve(converter) + '/')('openapi-to-postmanv2');
const openapi = JSON.parse(readFileSync(description, 'utf8'));

const resolved = (value) => value.$ref
  ? value.$ref.slice(2).split('/').reduce((at, name) => at[name], openapi)
  : value;

// What cannot be guessed is left empty, and switched off in the collection.
const example = ({ example = '' }) => ({ type: 'string', example });

function simplify(operation) {
  operation.security = operation.security.filter((entry) => 'sourceToken' in entry || 'operatorToken' in entry).slice(0, 1);
  operation.parameters = operation.parameters.map(resolved).map((parameter) => ({ ...parameter, schema: example(parameter) }));
  for (const body of Object.values(operation.requestBody?.content ?? {})) body.schema = example(body);
  operation.responses = { default: { description: 'See the reference.' } };
}

function tidy(item) {
  delete item.id;
  delete item.response;
  const { request } = item;
  for (const field of [...(request?.header ?? []), ...(request?.url.query ?? [])]) field.disabled = !field.value;
  item.item?.forEach(tidy);
}

for (const operations of Object.values(openapi.paths)) {
  delete operations.head;
  Object.values(operations).forEach(simplify);
}
const options = { requestParametersResolution: 'Example', folderStrategy: 'Tags', includeAuthInfoInExample: false };
convert({ type: 'json', data: openapi }, options, (error, made) => {
  if (error || !made.result) throw error ?? new Error(made.reason);
  const collection = made.output[0].data;
  delete collection.info._postman_id;
  collection.variable = [
    { key: 'baseUrl', value: 'http://127.0.0.1:8080' },
    { key: 'bearerToken', value: '' },
  ];
  collection.item.forEach(tidy);
  console.log(JSON.stringify(collection, null, 2));
});
