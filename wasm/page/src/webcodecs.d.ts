// The part of WebCodecs' image decoding that TypeScript's own library does not describe.

interface ImageDecoderInit {
  data: BufferSource;
  type: string;
  desiredWidth?: number;
  desiredHeight?: number;
}

declare class ImageDecoder {
  constructor(init: ImageDecoderInit);
  decode(options: { frameIndex: number; completeFramesOnly: boolean }): Promise<{ image: VideoFrame }>;
  close(): void;
}
