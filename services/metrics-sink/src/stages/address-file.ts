/** Where a sink with an embedded database says how to reach it: beside the folder that it alone may open. */
export const addressFile = (clickhousePath: string): string =>
  `${clickhousePath.replace(/\/+$/, '')}.address.json`;
