// What can one try here?

import { Trivium } from "./client";

declare global {
  interface Window {
    trivium: Trivium;
  }
}

window.trivium = await Trivium.connect();
