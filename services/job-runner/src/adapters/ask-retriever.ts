import type { LoggedRequest } from '../stages/group-requests.ts';

export interface RetrievedItems {
  policyVersion: string;
  items: { itemId: string }[];
}

/** @throws Error naming the address, the status and what the retriever said */
export async function askRetriever(
  { retrieverUrl, evaluateTimeoutMs }: { retrieverUrl: string; evaluateTimeoutMs: number },
  { scenario, userId, requestTimeMs, history }: LoggedRequest,
  k: number,
  stopping: AbortSignal,
): Promise<RetrievedItems> {
  const url = new URL('/retrieve', retrieverUrl);
  let response: Response;
  try {
    response = await fetch(url, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ scenario, userId, requestTimeMs, history, k }),
      signal: AbortSignal.any([stopping, AbortSignal.timeout(evaluateTimeoutMs)]),
    });
  } catch (cause) {
    throw new Error(`The retriever at ${url} does not answer: ${(cause as Error).message}`, { cause });
  }
  const text = await response.text();
  if (!response.ok)
    throw new Error(`The retriever at ${url} answered ${response.status}: ${text.slice(0, 500)}`);
  const answer = JSON.parse(text) as Partial<RetrievedItems>;
  if (typeof answer.policyVersion !== 'string' || !Array.isArray(answer.items))
    throw new Error(`Expected policyVersion and items from ${url}, got ${text.slice(0, 200)}`);
  return answer as RetrievedItems;
}
