import { expect } from 'vitest';

/** What `body` throws, or its promise rejects with, must have this code, and `part` in its message. */
export async function expectRefusal(
  body: () => unknown,
  code: string,
  part: string,
): Promise<void> {
  let thrown: unknown;
  try {
    await body();
  } catch (error) {
    thrown = error;
  }
  expect(thrown).toBeInstanceOf(Error);
  const { message } = thrown as Error;
  expect({ code: (thrown as { code: string }).code, message }).toEqual({
    code,
    message: expect.stringContaining(part),
  });
}
