// The routes, as the server describes them.
const told = await (await fetch("/api/openapi.json")).json();
for (const [path, methods] of Object.entries(told.paths)) {
  for (const [method, route] of Object.entries(methods)) {
    const body = Object.values(route.requestBody?.content ?? {})[0]?.schema?.$ref?.split("/").at(-1);
    const fields = [...Object.keys(told.components?.schemas?.[body]?.properties ?? {}), ...(route.parameters ?? []).map((one) => one.name)];
    const row = document.createElement("tr");
    for (const words of [`${method.toUpperCase()} ${path}`, route.description ?? route.summary, fields.join(", ")]) {
      row.append(Object.assign(document.createElement("td"), { textContent: words.replaceAll("``", "") }));
    }
    document.getElementById("routes").append(row);
  }
}
